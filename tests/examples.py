"""How many examples a property test takes."""

from __future__ import annotations

import os

EXPLORES = bool(os.environ.get("EXPLORE"))
"""Whether new examples are looked for. Else the same ones are taken every time."""
_all = EXPLORES


def take_all() -> None:
    """From now on, `examples` gives the second number: with `--slow`."""
    global _all
    _all = True


def examples(some: int, all_: int) -> int:
    """`some` of those that every run takes again; `all_` of them if time does not count, or if they are new."""
    return all_ if _all else some
