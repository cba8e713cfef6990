"""All trackers of a run, each fed by a thread of its own.

[Note: training never waits] A row is put into a queue that never blocks. Where a tracker does not keep up and its queue
is full, rows are left out for it; where it fails, it is dropped. Both are told once, by the thread that trains.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from cluster.trackers.options import make_trackers
from cluster.trackers.tracker import Outcome, Point, TrackedRun, Tracker, point_of
from coordinator.job.spec import JobSpec
from coordinator.train.rows import Row

CLOSE_S = 20.0
"""How long the end of a run waits for its trackers, in seconds, all of them together."""
_QUEUED_ROWS = 20_000
_BATCH_ROWS = 1_000
_GATHER_S = 0.5


class Trackers:
    """Those that the job asks for. `warn` is called with what went wrong, by the thread that calls `row` and
    `close`.

    `folder` is the run directory; `trackers` by name stand instead of those of the job; `public_only`: their servers
    must have public addresses. A `with` that an error leaves ends the run as failed.
    """

    def __init__(
        self,
        spec: JobSpec,
        folder: Path,
        *,
        attempt: int = 1,
        warn: Callable[[str], None],
        public_only: bool = False,
        trackers: Mapping[str, Tracker] | None = None,
    ) -> None:
        self._warn = warn
        wanted = make_trackers(spec, public_only=public_only) if trackers is None else trackers
        document = spec.document()
        document.pop("tracking", None)  # says nothing of the training, and a URI may hold a password
        place = folder.absolute()
        run = TrackedRun(name=spec.name, run=place.name, attempt=attempt, document=document, folder=place)
        self._feeds = [_Feed(name, tracker, run) for name, tracker in wanted.items()]

    def row(self, row: Row) -> None:
        """Tell every tracker of a row. Never waits, never raises."""
        if not self._feeds:
            return
        point = point_of(row, time.time())
        for feed in self._feeds:
            feed.put(point)
        self._warn_of_news()

    def close(self, outcome: Outcome) -> None:
        """End the run everywhere. What is not done after CLOSE_S is given up. May be called twice."""
        end = time.monotonic() + CLOSE_S
        for feed in self._feeds:
            feed.finish(outcome)
        for feed in self._feeds:
            feed.join(max(0.0, end - time.monotonic()))
        self._warn_of_news()
        self._feeds = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asked = kind is not None and not issubclass(kind, Exception)  # Ctrl-C, or who asks for rows left
        self.close("stopped" if asked else "failed")

    def _warn_of_news(self) -> None:
        for feed in self._feeds:
            while feed.news:
                self._warn(f"tracker {feed.name}: {feed.news.pop(0)}")


class _Feed:
    """One tracker, its queue and its thread. `news` is what is to be warned of."""

    def __init__(self, name: str, tracker: Tracker, run: TrackedRun) -> None:
        self.name, self._tracker, self._run = name, tracker, run
        self.news: list[str] = []
        self._queue: queue.Queue[Point] = queue.Queue(_QUEUED_ROWS)
        self._outcome: Outcome | None = None
        self._left_out = 0
        self._dropped = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=f"tracker-{name}", daemon=True)
        self._thread.start()

    def put(self, point: Point) -> None:
        """Queue a point."""
        if self._dropped:
            return
        try:
            self._queue.put_nowait(point)
        except queue.Full:
            if not self._left_out:
                self.news.append("does not keep up; rows are left out for it")
            self._left_out += 1

    def finish(self, outcome: Outcome) -> None:
        """No more points come."""
        self._outcome = outcome
        self._closing.set()

    def join(self, seconds: float) -> None:
        """Wait until it is through."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._dropped = True
            self.news.append(f"did not take everything within {CLOSE_S:g} s after the end; given up")
        elif self._left_out and not self._dropped:
            self.news.append(f"{self._left_out:,} rows were left out for it")

    def _serve(self) -> None:
        try:
            self._tracker.start(self._run)
            closing = False
            while not closing and not self._dropped:
                closing = self._closing.wait(_GATHER_S)  # asked before looking: what was put before it is then seen
                while not self._dropped and (points := self._take()):
                    self._tracker.write(points)
        except Exception as error:  # whatever a tracker's library or server does, the run goes on
            self._dropped = True
            self.news.append(f"dropped: {type(error).__name__}: {_first_line(error)}")
            self._closing.wait()
        self._close()

    def _close(self) -> None:
        """Tell how the run ended; one that was dropped too, for it may be able to again."""
        try:
            self._tracker.close(self._outcome or "failed")
        except Exception as error:
            if not self._dropped:
                self._dropped = True
                self.news.append(f"dropped: {type(error).__name__}: {_first_line(error)}")

    def _take(self) -> list[Point]:
        points: list[Point] = []
        while len(points) < _BATCH_ROWS:
            try:
                points.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return points


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else "no reason was given"
