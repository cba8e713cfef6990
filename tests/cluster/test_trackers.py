"""Trackers that misbehave disturb neither the run nor each other."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from cluster.trackers import Point, TrackedRun, Trackers
from cluster.trackers import trackers as module
from cluster.trackers.tracker import Outcome
from tests.cluster.tracked_runs import rows, run
from tests.jobs import digits_job


class Recorder:
    """A tracker that keeps what it gets, and can be blocked or made to fail at any point."""

    def __init__(self, *, fails: str = "", waits: threading.Event | None = None) -> None:
        self.calls: list[str] = []
        self.points: list[Point] = []
        self.threads: set[int] = set()
        self._fails, self._waits = fails, waits

    def _note(self, call: str) -> None:
        self.calls.append(call)
        self.threads.add(threading.get_ident())
        if self._waits is not None:
            self._waits.wait(30)
        if self._fails == call:
            raise ConnectionError(f"cannot {call}\nsecond line")

    def start(self, run: TrackedRun) -> None:
        self._note("start")

    def write(self, points: Sequence[Point]) -> None:
        self._note("write")
        self.points += points

    def close(self, outcome: Outcome) -> None:
        self._note("close")


def test_a_tracker_has_one_thread_of_its_own_and_gets_every_point_in_order(tmp_path: Path) -> None:
    tracker = Recorder()
    assert run(digits_job(), tmp_path, trackers={"recorder": tracker}) == []
    assert [point.step for point in tracker.points] == [1, 2, 3, 3]
    assert (tracker.calls[0], tracker.calls[-1]) == ("start", "close")
    assert len(tracker.threads) == 1
    assert threading.get_ident() not in tracker.threads
    assert not [thread for thread in threading.enumerate() if thread.name == "tracker-recorder"]


@pytest.mark.parametrize("call", ["start", "write", "close"])
def test_a_tracker_that_fails_is_told_once_and_the_other_goes_on(tmp_path: Path, call: str) -> None:
    broken, fine = Recorder(fails=call), Recorder()
    told = run(digits_job(), tmp_path, trackers={"broken": broken, "fine": fine})
    assert told == [f"tracker broken: dropped: ConnectionError: cannot {call}"]
    assert [point.step for point in fine.points] == [1, 2, 3, 3]


def test_a_tracker_that_hangs_neither_stops_rows_nor_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOSE_S", 0.2)
    monkeypatch.setattr(module, "_QUEUED_ROWS", 2)
    held = threading.Event()
    told = run(digits_job(), tmp_path, trackers={"slow": Recorder(waits=held)})
    held.set()
    assert told == [
        "tracker slow: does not keep up; rows are left out for it",
        "tracker slow: did not take everything within 0.2 s after the end; given up",
    ]


def test_rows_that_were_left_out_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_QUEUED_ROWS", 2)
    held, told = threading.Event(), list[str]()
    tracker = Recorder(waits=held)
    trackers = Trackers(digits_job(), tmp_path, warn=told.append, trackers={"slow": tracker})
    for row in rows():
        trackers.row(row)
    held.set()
    trackers.close("finished")
    trackers.close("finished")
    assert told == [
        "tracker slow: does not keep up; rows are left out for it",
        "tracker slow: 2 rows were left out for it",
    ]
    assert [point.step for point in tracker.points] == [1, 2]


def test_a_run_that_ends_by_an_error_has_failed_and_one_that_was_closed_has_not(tmp_path: Path) -> None:
    outcomes: list[Outcome] = []

    class Ends(Recorder):
        def close(self, outcome: Outcome) -> None:
            outcomes.append(outcome)

    with pytest.raises(ZeroDivisionError), Trackers(digits_job(), tmp_path, warn=print, trackers={"x": Ends()}):
        raise ZeroDivisionError
    with Trackers(digits_job(), tmp_path, warn=print, trackers={"x": Ends()}) as trackers:
        trackers.close("stopped")
    assert outcomes == ["failed", "stopped"]


def test_without_trackers_there_is_nothing(tmp_path: Path) -> None:
    before = set(threading.enumerate())  # threads of earlier servers and trackers may be ending
    assert run(digits_job(), tmp_path) == []
    assert not [thread for thread in threading.enumerate() if thread not in before and "tracker" in thread.name]
    assert list(tmp_path.iterdir()) == []
