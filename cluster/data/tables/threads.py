"""Work on columns and blocks of rows in several threads. NumPy releases the interpreter's lock in long loops.

Only work that is independent and gives the same bits in any order may be done here.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
S = TypeVar("S")
R = TypeVar("R")
_MOST_THREADS = 8


def in_threads(work: Callable[[T], R], items: Iterable[T], *, large: bool) -> list[R]:
    """Return the result for each item, in their order, from as many threads as there are CPUs; from this thread if the
    work is not `large`. Raises the first error."""
    n_threads = _n_threads() if large else 1
    if n_threads == 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(work, items))


def ahead(work: Callable[[T, S], R], items: Iterable[T], space: Callable[[], S]) -> Iterator[tuple[T, R]]:
    """Yield each item with its result, in their order, while other threads work on the next ones, one for each CPU.
    `work` gets an item and what `space` has made for it, which is used again once the next result is asked for.
    Raises the first error."""
    n_threads = _n_threads()
    spaces, running = deque(space() for _ in range(n_threads + 1)), deque[tuple[T, Future[R], S]]()
    with ThreadPoolExecutor(n_threads) as pool:
        for item in items:
            running.append((item, pool.submit(work, item, spaces[0]), spaces.popleft()))
            if not spaces:
                done, result, own = running.popleft()
                yield done, result.result()
                spaces.append(own)
        for done, result, _ in running:
            yield done, result.result()


def _n_threads() -> int:
    return min(_MOST_THREADS, len(os.sched_getaffinity(0)))
