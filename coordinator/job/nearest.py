"""Finds the known word that the user probably meant by an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LIKENESS = 0.7
"""With a lower limit, words of quite different meaning count as alike: `attention` and `flatten` have 0.63."""


def closest(word: str, known: Iterable[str], likeness: float = _LIKENESS) -> str | None:
    """Return the most similar known word; None if none is similar enough. Case is ignored in `word`, not in `known`."""
    words = list(known)
    near = difflib.get_close_matches(word[:100], words, n=1, cutoff=likeness)
    near = near or difflib.get_close_matches(word[:100].lower(), words, n=1, cutoff=likeness)
    return near[0] if near else None


def did_you_mean(word: object, known: Iterable[str], likeness: float = _LIKENESS) -> str:
    """Return "; did you mean units?" if a known word is similar, else an empty text."""
    near = closest(word, known, likeness) if isinstance(word, str) else None
    return "" if near is None else f"; did you mean {near}?"
