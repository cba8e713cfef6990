"""Finds workers that compute slower than they used to, or than their plan, while the others do not: from the steps'
reports, without messages of its own.

[Note: stragglers] A worker's pace is the time that it computes for a row. Its usual pace is the median of its windows
before, each of at least a second and three steps. If a whole machine becomes slow, all workers do: so a worker is
compared with the other workers too. It is a straggler after five windows in succession in which it took 1.5 × its usual
time, and 1.5 × as much more than the others did; it is none any more after five below 1.25 ×.

[Note: slower than the plan] A worker that is slow from its first step on has no quicker history. It is a straggler,
too, if it took 2 × the time that the plan gives it at the pace of the others, in five windows in succession after its
first five; it is none any more after five below 1.5 ×. The pace of the others is the median of their times over their
plans, so a plan that is wrong by a factor for all blames nobody. Plans of less than 10 ms a step are not used: what
they do not know, such as the time of a call, is then a large part.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from stages.ledger import BUBBLE_KINDS, STAGE_KINDS, Account

SLOW, USUAL = 1.5, 1.25
BEHIND, AS_PLANNED = 2.0, 1.5
PLANNED_S = 0.01
"""The least that each worker's plan must take for a full batch to be used, in seconds."""
_WINDOW_S, _STEPS = 1.0, 3
_IN_SUCCESSION = 5
_REMEMBERED, _LEAST = 60, 5
"""Windows that make the usual pace, and how many are needed for it."""
_COMPUTES = tuple(kind for kind in range(len(STAGE_KINDS)) if kind not in BUBBLE_KINDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Straggling:
    """A worker is a straggler or, if `over`, no longer. `seconds` is its computing for a full batch now, `usual_s` as
    usual; `factor` is their quotient, and `others` the one of the other workers. With `by_plan`, `usual_s` is what the
    plan gives it at the pace of the others. `since` is the first step of which this is true, `step` the last one."""

    worker: int
    over: bool
    seconds: float
    usual_s: float
    factor: float
    others: float
    since: int
    step: int
    by_plan: bool = False


def computing_s(account: Account) -> float:
    """Return the seconds in which the worker computed actions and updates."""
    return sum(row[kind] for row in account.stages.values() for kind in _COMPUTES)


class _History:
    """The windows of one worker."""

    def __init__(self) -> None:
        self.usual: deque[float] = deque(maxlen=_REMEMBERED)
        self.straggles, self.behind = False, False
        self.run: list[tuple[int, float]] = []
        """First step and pace of each of the last windows that contradict `straggles`."""
        self.run_by_plan: list[tuple[int, float, float]] = []
        """First step, pace and planned pace of each of the last windows that contradict `behind`."""


class Stragglers:
    """Takes in the steps of a run in order. `batch` is the number of rows of a full batch, `planned` what the plan
    gives each worker for it, in seconds of any machine; without it, workers are compared with their history only."""

    def __init__(self, n_workers: int, batch: int, planned: Sequence[float] = ()) -> None:
        self._batch = batch
        usable = n_workers > 1 and len(planned) == n_workers and min(planned) >= PLANNED_S
        self._planned = tuple(planned) if usable else None
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
            factor = None if history.behind else factors[worker]
            others = [one for w, one in enumerate(factors) if w != worker and one is not None]
            if factor is not None and others:
                change = self._look(worker, pace, factor, max(1.0, median(others)), step)
                found += [] if change is None else [change]
            if not history.straggles:
                history.usual.append(pace)
        return found + self._judge_by_plan(paces, step)

    def _judge_by_plan(self, paces: Sequence[float], step: int) -> list[Straggling]:
        """See [Note: slower than the plan]."""
        if self._planned is None:
            return []
        slowness = [pace / planned for pace, planned in zip(paces, self._planned, strict=True)]
        found = []
        for worker, (pace, history) in enumerate(zip(paces, self._histories, strict=True)):
            planned = self._planned[worker] * median(one for w, one in enumerate(slowness) if w != worker)
            contradicts = pace < AS_PLANNED * planned if history.behind else pace >= BEHIND * planned
            if not contradicts or history.straggles or len(history.usual) < _LEAST or not planned:
                history.run_by_plan = []
                continue
            history.run_by_plan.append((self._first, pace, planned))
            if len(history.run_by_plan) == _IN_SUCCESSION:
                found.append(self._change_by_plan(worker, history, step))
        return found

    def _change_by_plan(self, worker: int, history: _History, step: int) -> Straggling:
        seconds, planned = (median(column) for column in list(zip(*history.run_by_plan, strict=True))[1:])
        since = history.run_by_plan[0][0]
        history.behind, history.run_by_plan, history.run = not history.behind, [], []
        return Straggling(
            worker=worker,
            over=not history.behind,
            seconds=seconds * self._batch,
            usual_s=planned * self._batch,
            factor=seconds / planned,
            others=1.0,
            since=since,
            step=step,
            by_plan=True,
        )

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
