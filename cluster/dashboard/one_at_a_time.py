"""Long computations for readers of pages: one at a time, in a thread of their own, and few that wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from stages.errors import Refused

T = TypeVar("T")
MOST_WAITING = 8


class OneAtATime:
    """Computes for all readers of a page in one thread, so that they cannot take the threads and cores of the service.

    The threads of `asyncio.to_thread` serve the store and the files of jobs, too.
    """

    def __init__(self, name: str, most_waiting: int = MOST_WAITING) -> None:
        self._name, self._most, self._waiting = name, most_waiting, 0
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, compute: Callable[[], T]) -> T:
        """Return what `compute` returns. Raises Refused if too many others wait, and what `compute` raises."""
        if self._waiting >= self._most:
            raise Refused(f"{self._name}: {self._waiting} other requests are being computed; try again in a moment")
        future = self._thread.submit(compute)
        with self._lock:
            self._waiting += 1
        future.add_done_callback(self._done)  # not when the request is cancelled: the thread goes on computing
        return await asyncio.wrap_future(future)

    def _done(self, _: Future[T]) -> None:
        with self._lock:
            self._waiting -= 1
