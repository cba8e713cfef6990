"""Turns tokens into text one by one, while a network writes them."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

import numpy as np

from cluster.data.texts.loading import Vocabulary

_BROKEN = "\ufffd"
"""The character that stands for bytes which are not a whole character (yet)."""
_LOOKS_BACK = 16
"""The tokens that are decoded again with each new one: the text of a tokenizer's token depends on its neighbours."""


class WrittenText:
    """The text of the tokens after `tokens`, as it becomes known. A character of several tokens comes with the last of
    them."""

    def __init__(self, vocabulary: Vocabulary, tokens: Iterable[int]) -> None:
        self._vocabulary = vocabulary
        self._bytes = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._recent = list(tokens)[-_LOOKS_BACK:]
        self._shown = len(self._decode(self._recent))

    def take(self, token: int) -> str:
        """Take the next token; return the text that has become known with it."""
        kind = self._vocabulary.kind
        if kind == "bytes":
            return self._bytes.decode(bytes([token]))
        if kind == "characters":
            return self._decode([token])
        if kind == "numbers":
            return f" {token}"
        self._recent.append(token)
        text = self._decode(self._recent)
        if text.endswith(_BROKEN):
            return ""
        piece = text[self._shown :]
        self._recent = self._recent[-_LOOKS_BACK:]
        self._shown = len(self._decode(self._recent))
        return piece

    def rest(self) -> str:
        """Return the rest of the text at the end: `\ufffd` for an incomplete character."""
        if self._vocabulary.kind == "bytes":
            return self._bytes.decode(b"", final=True)
        return self._decode(self._recent)[self._shown :]

    def _decode(self, tokens: list[int]) -> str:
        return self._vocabulary.decode(np.array(tokens, dtype=np.int64))
