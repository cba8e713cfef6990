"""Finds workers that compute slower than they used to while the others do not: from the steps' reports, without
messages of its own.

[Note: stragglers] A worker's pace is the time that it computes for a row. Its usual pace is the median of its windows
before, each of at least a second and three steps. If a whole machine becomes slow, all workers do: so a worker is
compared with the other workers too. It is a straggler after five windows in succession in which it took 1.5 × its usual
time, and 1.5 × as much more than the others did; it is none any more after five below 1.25 ×.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from stages.ledger import BUBBLE_KINDS, STAGE_KINDS, Account

SLOW, USUAL = 1.5, 1.25
_WINDOW_S, _STEPS = 1.0, 3
_IN_SUCCESSION = 5
_REMEMBERED, _LEAST = 60, 5
"""Windows that make the usual pace, and how many are needed for it."""
_COMPUTES = tuple(kind for kind in range(len(STAGE_KINDS)) if kind not in BUBBLE_KINDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Straggling:
    """A worker is a straggler or, if `over`, no longer. `seconds` is its computing for a full batch now, `usual_s` as
    usual; `factor` is their quotient, and `others` the one of the other workers. `since` is the first step of which
    this is true, `step` the last one."""

    worker: int
    over: bool
    seconds: float
    usual_s: float
    factor: float
    others: float
    since: int
    step: int


def computing_s(account: Account) -> float:
    """Return the seconds in which the worker computed actions and updates."""
    return sum(row[kind] for row in account.stages.values() for kind in _COMPUTES)


class _History:
    """The windows of one worker."""

    def __init__(self) -> None:
        self.usual: deque[float] = deque(maxlen=_REMEMBERED)
        self.straggles = False
        self.run: list[tuple[int, float]] = []
        """First step and pace of each of the last windows that contradict `straggles`."""


class Stragglers:
    """Takes in the steps of a run in order. `batch` is the number of rows of a full batch."""

    def __init__(self, n_workers: int, batch: int) -> None:
        self._batch = batch
        self._histories = [_History() for _ in range(n_workers)]
        self._seconds = [0.0] * n_workers
        self._wall, self._rows, self._steps, self._first = 0.0, 0, 0, 0

    def forget(self, worker: int) -> None:
        """Forget a worker's history, because another process, perhaps on another host, holds its stages now."""
        self._histories[worker] = _History()

    def take(self, step: int, rows: int, wall_s: float, accounts: Sequence[Account]) -> list[Straggling]:
        """Take in a step that took `wall_s`; `accounts[w]` is that of worker w. Return what has changed."""
        if not self._steps:
            self._first = step
        for worker, account in enumerate(accounts):
            self._seconds[worker] += computing_s(account)
        self._wall, self._rows, self._steps = self._wall + wall_s, self._rows + rows, self._steps + 1
        if self._wall < _WINDOW_S or self._steps < _STEPS:
            return []
        found = self._judge([seconds / max(1, self._rows) for seconds in self._seconds], step)
        self._seconds = [0.0] * len(self._seconds)
        self._wall, self._rows, self._steps = 0.0, 0, 0
        return found

    def _judge(self, paces: Sequence[float], step: int) -> list[Straggling]:
        factors: list[float | None] = []
        for pace, history in zip(paces, self._histories, strict=True):
            known = len(history.usual) >= _LEAST and median(history.usual) > 0
            factors.append(pace / median(history.usual) if known else None)
        found = []
        for worker, (pace, history) in enumerate(zip(paces, self._histories, strict=True)):
            factor = factors[worker]
            others = [one for w, one in enumerate(factors) if w != worker and one is not None]
            if factor is not None and others:
                change = self._look(worker, pace, factor, max(1.0, median(others)), step)
                found += [] if change is None else [change]
            if not history.straggles:
                history.usual.append(pace)
        return found

    def _look(self, worker: int, pace: float, factor: float, others: float, step: int) -> Straggling | None:
        history = self._histories[worker]
        relative = factor / others
        contradicts = relative < USUAL if history.straggles else relative >= SLOW
        if not contradicts:
            history.run = []
            return None
        history.run.append((self._first, pace))
        if len(history.run) < _IN_SUCCESSION:
            return None
        seconds = median(one for _, one in history.run)
        usual = median(history.usual)
        history.straggles = not history.straggles
        since, history.run = history.run[0][0], []
        return Straggling(
            worker=worker,
            over=not history.straggles,
            seconds=seconds * self._batch,
            usual_s=usual * self._batch,
            factor=seconds / usual,
            others=others,
            since=since,
            step=step,
        )
