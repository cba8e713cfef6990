"""How many examples a property test takes."""

from __future__ import annotations

import os

EXPLORES = bool(os.environ.get("EXPLORE"))
"""Whether tests look for new examples. Else every run takes the same ones."""
_all = EXPLORES


def take_all() -> None:
    """Let `examples` return the second number from now on: for `--slow`."""
    global _all
    _all = True


def takes_all() -> bool:
    """Whether time does not matter."""
    return _all


def examples(some: int, all_: int) -> int:
    """Return `some`, or `all_` if time does not matter (`--slow`) or examples are new (EXPLORE)."""
    return all_ if _all else some
