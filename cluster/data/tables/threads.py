"""Work on columns and blocks of rows in several threads. NumPy releases the interpreter's lock in long loops.

Only work that is independent and gives the same bits in any order may be done here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
_MOST_THREADS = 8


def in_threads(work: Callable[[T], R], items: Iterable[T], *, large: bool) -> list[R]:
    """Return the result for each item, in their order, from as many threads as there are CPUs; from this thread if the
    work is not `large`. Raises the first error."""
    n_threads = min(_MOST_THREADS, len(os.sched_getaffinity(0))) if large else 1
    if n_threads == 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(work, items))
