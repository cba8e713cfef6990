"""The health report of /healthz, from checks made at the time of the request.

A check writes to the store, looks at the disk through the threads that all reading uses, calls the Ray agent, and
measures the event loop's delays. A request waits at most _LOOK_S seconds; concurrent requests share one check.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from typing import Any

from cluster.actors.disk_room import full_for_ray, is_full
from cluster.service import store
from cluster.service.crowding import Crowding
from cluster.service.jobs import Jobs
from cluster.service.ray_keeper import RayKeeper
from stages.errors import PipetrainError

_LOOK_S = 3.0
_FRESH_S = 1.0
_BEAT_S = 0.25
_BEATS = 40  # of the last ten seconds
_LATE_S = 5.0
"""A loop that stands still for longer is reported as a problem."""
_AGENT_S = 2.5


class Health:
    """Checks the health of one service."""

    def __init__(self, jobs: Jobs, keeper: RayKeeper) -> None:
        self._jobs, self._keeper = jobs, keeper
        self.crowding = Crowding(())
        self._late: deque[float] = deque(maxlen=_BEATS)
        self._looking: asyncio.Task[list[str]] | None = None
        self._began_at = self._looked_at = float("-inf")

    async def keep(self) -> None:
        """Measure how late the event loop is, for as long as the service runs."""
        while True:
            begin = time.monotonic()
            await asyncio.sleep(_BEAT_S)
            self._late.append(max(0.0, time.monotonic() - begin - _BEAT_S))

    async def look(self) -> dict[str, Any]:
        """Return `ok`, `problems` (a line for each thing that does not work), and figures."""
        problems = [*await self._looked(), *self._loop_problems(), *self.crowding.problems]
        return {
            "ok": not problems,
            "problems": problems,
            "ray": self._keeper.state,
            "queued": len(self._jobs),
            "active": len(self._jobs.active()),
            "loop_late_seconds": round(self._lateness(), 3),
        }

    async def _ray_problems(self) -> list[str]:
        if self._keeper.state != "up":
            return [f"Ray: {self._keeper.state}"]
        answers = await self._keeper.agent_answers(_AGENT_S)
        problem = f"the Ray agent, which starts and stops jobs, did not answer within {_AGENT_S:g} s"
        return [] if answers else [problem]

    def _lateness(self) -> float:
        return max(self._late, default=0.0)

    def _loop_problems(self) -> list[str]:
        found = []
        if self._lateness() > _LATE_S:
            found.append(f"the event loop stood still for {self._lateness():.1f} s a moment ago")
        still = time.monotonic() - self._jobs.following.round_at
        if still > _LATE_S:
            found.append(f"the service has not looked at running jobs for {still:.0f} s")
        return found

    async def _looked(self) -> list[str]:
        """Check, but only once at a time: a check that hangs must not take another thread at each request."""
        now = time.monotonic()
        if self._looking is None or (self._looking.done() and now - self._looked_at > _FRESH_S):
            self._began_at = now
            self._looking = asyncio.create_task(self._look_around())
        done, _ = await asyncio.wait([self._looking], timeout=_LOOK_S)
        if not done:
            since = time.monotonic() - self._began_at
            return [f"{self._jobs.home.folder}: neither store nor disk answered within {since:.0f} s"]
        return self._looking.result()

    async def _look_around(self) -> list[str]:
        ray, storage = await asyncio.gather(self._ray_problems(), self._storage_problems())
        self._looked_at = time.monotonic()
        return [*ray, *storage]

    async def _storage_problems(self) -> list[str]:
        folder, found = self._jobs.home.folder, []
        try:
            await self._jobs.noting.write(store.probe())
        except PipetrainError as error:
            found.append(str(error))
        except Exception as error:
            found.append(f"{self._jobs.store.path}: cannot be written: {type(error).__name__}: {error}")
        problem = await asyncio.to_thread(_disk_problem, str(folder))
        if problem and not found:
            found.append(problem)
        if self._keeper.folder and (problem := await asyncio.to_thread(full_for_ray, self._keeper.folder)):
            found.append(f"{problem}; jobs start when there is room")
        return found


def _disk_problem(folder: str) -> str:
    try:
        os.stat(folder)
    except OSError as error:
        return f"{folder}: {os.strerror(error.errno or 0).lower()}"
    return f"no space left on device: {folder}" if is_full(folder) else ""
