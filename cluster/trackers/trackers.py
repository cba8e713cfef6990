"""All trackers of a run, each served by a thread of its own.

[Note: training never waits] A row is put into a queue that never blocks. If a tracker is too slow and its queue is
full, rows are left out for it; if it fails, it is dropped. The training thread warns of each once.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from cluster.trackers.earlier_rows import earlier_points, without
from cluster.trackers.options import make_trackers
from cluster.trackers.tracker import Outcome, Point, TrackedRun, Tracker, point_of
from coordinator import run_files
from coordinator.job.spec import JobSpec
from coordinator.train.rows import Row
from stages.errors import GraceOver

CLOSE_S = 20.0
"""How long the end of a run waits for all its trackers together, in seconds."""
_QUEUED_ROWS = 20_000
_BATCH_ROWS = 1_000
_GATHER_S = 0.5


class Trackers:
    """The trackers of a job. `warn` is called with their problems, by the thread that calls `row` and `close`.

    `folder` is the run directory; `trackers`, by name, replace those of the job; `public_only`: their servers must have
    public addresses. An error in the `with` block ends the run as failed.

    A run that goes on after step `after` goes on in the same run of a tracker. Of the rows that are in its file already
    the tracker gets those that it does not have, and no point twice.
    """

    def __init__(
        self,
        spec: JobSpec,
        folder: Path,
        *,
        attempt: int = 1,
        after: int = 0,
        warn: Callable[[str], None],
        public_only: bool = False,
        trackers: Mapping[str, Tracker] | None = None,
    ) -> None:
        self._warn = warn
        wanted = make_trackers(spec, public_only=public_only) if trackers is None else trackers
        document = spec.document()
        document.pop("tracking", None)  # not part of the training, and a URI may contain a password
        place = folder.absolute()
        run = TrackedRun(name=spec.name, run=place.name, attempt=attempt, document=document, folder=place, after=after)
        rows = place / run_files.METRICS
        earlier = rows.stat().st_size if rows.exists() else 0  # the rows of this life come through `row`
        self._feeds = [_Feed(name, tracker, run, earlier) for name, tracker in wanted.items()]

    def row(self, row: Row) -> None:
        """Pass a row to every tracker. Never waits, never raises."""
        if not self._feeds:
            return
        point = point_of(row, time.time())
        for feed in self._feeds:
            feed.put(point)
        self._warn_of_news()

    def close(self, outcome: Outcome) -> None:
        """End the run at every tracker. Trackers that are not done after CLOSE_S are given up. A second call does
        nothing."""
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
        # Ctrl-C, the generator of rows was closed, or a stopped run was not done in time
        asked = kind is not None and (not issubclass(kind, Exception) or issubclass(kind, GraceOver))
        self.close("stopped" if asked else "failed")

    def _warn_of_news(self) -> None:
        for feed in self._feeds:
            while feed.news:
                self._warn(f"tracker {feed.name}: {feed.news.pop(0)}")


class _Feed:
    """A tracker with its queue and its thread. `news` has the warnings to give."""

    def __init__(self, name: str, tracker: Tracker, run: TrackedRun, earlier_bytes: int) -> None:
        self.name, self._tracker, self._run, self._earlier_bytes = name, tracker, run, earlier_bytes
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
        """End the run after the queued points."""
        self._outcome = outcome
        self._closing.set()

    def join(self, seconds: float) -> None:
        """Wait at most `seconds` until the tracker is done."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._dropped = True
            self.news.append(f"did not take everything within {CLOSE_S:g} s after the end; given up")
        elif self._left_out and not self._dropped:
            self.news.append(f"{self._left_out:,} rows were left out for it")

    def _serve(self) -> None:
        try:
            recorded = self._tracker.start(self._run) or {}
            self._write_earlier(recorded)
            closing = False
            while not closing and not self._dropped:
                closing = self._closing.wait(_GATHER_S)  # read before the queue, so that no point is missed
                while not self._dropped and (points := self._take()):
                    self._write(points, recorded)
        except Exception as error:  # whatever a tracker's library or server does, the run goes on
            self._dropped = True
            self.news.append(f"dropped: {type(error).__name__}: {_first_line(error)}")
            self._closing.wait()
        self._close()

    def _write_earlier(self, recorded: Mapping[str, int]) -> None:
        if not self._earlier_bytes:
            return
        points = earlier_points(self._run.folder / run_files.METRICS, self._earlier_bytes, time.time())
        while not self._dropped and (batch := list(islice(points, _BATCH_ROWS))):
            self._write(batch, recorded)

    def _write(self, points: Sequence[Point], recorded: Mapping[str, int]) -> None:
        if recorded and points[0].step <= max(recorded.values()):
            points = [new for point in points if (new := without(point, recorded)) is not None]
        if points:
            self._tracker.write(points)

    def _close(self) -> None:
        """End the run at the tracker. Try this even if it was dropped, because it may work again."""
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
