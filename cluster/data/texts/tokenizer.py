"""Tokens of a text, and the text of tokens, by a tokenizer.json and the `tokenizers` library.

Such a file may ask for the first tokens of a text only, for tokens that fill it up, or for special tokens around it.
None of that is done: a text is data of any length, and has its own tokens only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.data.files import one_line
from cluster.data.texts.token_files import MOST_TOKENS
from stages.errors import InvalidData, PipetrainError

OF_THE_RUN = "the run's tokenizer"
"""The name, in messages, of a tokenizer that was read before."""


def size_of(content: str, source: str) -> int:
    """Return the largest token number of the file's content plus 1, at least 2. Raises InvalidData."""
    found = _tokenizer(content, source)
    with _as_invalid_data(f"{source}: is no tokenizer.json"):
        size = max(2, 1 + max(found.get_vocab(with_added_tokens=True).values(), default=0))
    if size > MOST_TOKENS:
        raise InvalidData(f"{source}: its token {size - 1} is too large, must be below {MOST_TOKENS:,}")
    return size


def encode(content: str, text: str, size: int, source: str) -> NDArray[Any]:
    """Return the token numbers of a text, all below `size`. Raises InvalidData if the tokenizer lacks a part of it."""
    found = _tokenizer(content)
    with _as_invalid_data(f"{source}: the tokenizer cannot encode it"):
        tokens = np.array(found.encode(text, add_special_tokens=False).ids, dtype=np.uint32)
    if len(tokens) and tokens.max() >= size:
        raise InvalidData(f"{source}: the tokenizer gives the token {tokens.max()}, must be below {size}, its size")
    return tokens


def can_cut(content: str) -> bool:
    """Whether a text has the same tokens if it is cut after line breaks that stand alone between two words or signs
    (`cut_after_lines`). It is known of tokenizers that make such a line break, or nothing of it, a word of its own, and
    the tokens of each word from that word alone: those of GPT-2's kind, and those that divide at spaces. Others may
    look further, so a text goes to them whole."""
    try:
        found = json.loads(content)
        words, model = found["pre_tokenizer"] or {}, found["model"]
        kind = words.get("type")
        divides = kind in ("Whitespace", "WhitespaceSplit", "BertPreTokenizer") or (
            kind == "ByteLevel" and words["add_prefix_space"] is False and words.get("use_regex", True)
        )
        alone = model["type"] in ("BPE", "WordPiece", "WordLevel") and not model.get("dropout")
        plain = not any(
            one["lstrip"] or one["rstrip"] or one["single_word"] or "\n" in one["content"]
            for one in found["added_tokens"]
        )
        return bool(divides and alone and plain and found["normalizer"] is None)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):  # another version of the format
        return False


def decode(content: str, tokens: NDArray[Any]) -> str:
    """Return the text of token numbers; nothing for those without a token. Raises InvalidData."""
    found = _tokenizer(content)
    with _as_invalid_data(f"{OF_THE_RUN}: cannot decode tokens"):
        return str(found.decode(tokens.tolist()))


def number_of(content: str, token: str) -> int | None:
    """Return the number of a token; None if there is no such token. Raises InvalidData."""
    found = _tokenizer(content)
    with _as_invalid_data(f"{OF_THE_RUN}: cannot find a token"):
        number: int | None = found.token_to_id(token)
    return number


def _tokenizer(content: str, source: str = OF_THE_RUN) -> Any:
    with _as_invalid_data(f"{source}: is no tokenizer.json"):
        return _loaded(content)


@lru_cache(maxsize=2)
def _loaded(content: str) -> Any:
    try:
        from tokenizers import Tokenizer  # an optional extra
    except ImportError:
        raise InvalidData("a tokenizer.json needs a package: pip install 'pipetrain[text]'") from None
    made = Tokenizer.from_str(content)
    made.no_truncation()
    made.no_padding()
    return made


@contextmanager
def _as_invalid_data(what: str) -> Iterator[None]:
    """Turn every error of the library into InvalidData. It raises plain Exceptions, and for a damaged file also the
    panics of its Rust code, which are no Exceptions."""
    try:
        yield
    except PipetrainError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InvalidData(f"{what}: {one_line(error)}") from None
