"""Where every worker's time went, summed over the steps of an attempt: the lines of accounts.jsonl.

Times are cumulative whole microseconds, so that the last line is the total and the difference of two lines is what lies
between them; nothing is lost by leaving lines out. A worker's wall time is the sum of its stages' rows and its own. The
last line of an attempt that came to its end also has what followed the last step: its update and evaluation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from stages.ledger import BUBBLE_KINDS, EVALUATION, OTHER, STAGE_KINDS, WAIT_DRAIN, WORKER_KINDS, Account
from stages.orders import Settled, StepReport

_WINDOW_S = 1.0
"""The bubble of a line is over one to two such windows: single steps differ too much to be told one a line."""


@dataclass(frozen=True, slots=True)
class Bubble:
    """Idle shares, 0 to 1: of the whole pipeline, and by stage (of its worker's time)."""

    total: float
    stages: tuple[float, ...]


class Accounts:
    """The totals so far. `placement[s]` is the worker of stage s."""

    def __init__(self, placement: Sequence[int]) -> None:
        self._placement = tuple(placement)
        self._stages = [[0.0] * len(STAGE_KINDS) for _ in placement]
        self._workers = [[0.0] * len(WORKER_KINDS) for _ in range(max(placement) + 1)]
        self._links: dict[tuple[int, int], list[int]] = {}
        begun = [0.0] * len(self._stages), [0.0] * len(self._workers)
        self._windows: deque[tuple[float, list[float], list[float]]] = deque([(-inf, *begun)], maxlen=2)

    def add(self, reports: Sequence[StepReport]) -> Bubble:
        """Take in one step, `reports[w]` of worker w; its bubble."""
        self.add_rest(reports)
        return step_bubble([report.account for report in reports])

    def add_rest(self, reports: Sequence[StepReport | Settled]) -> None:
        """Take in what belongs to no step."""
        for worker, report in enumerate(reports):
            _add(self._workers[worker], report.account.worker)
            for stage, seconds in report.account.stages.items():
                _add(self._stages[stage], seconds)
            for to, (messages, n_bytes) in report.sent.items():
                link = self._links.setdefault((worker, to), [0, 0])
                link[0] += messages
                link[1] += n_bytes

    def line(self, step: int, ended: float, predicted: Bubble | None) -> dict[str, Any]:
        """The totals after step `step` (from 1), which ended at `ended` (seconds UTC), with each stage's bubble of the
        last one to two seconds, of one step at least, and the one that was predicted last, for steps of whole size."""
        stages = [[round(1e6 * seconds) for seconds in row] for row in self._stages]
        workers = [[round(1e6 * seconds) for seconds in row] for row in self._workers]
        wall = [sum(row) for row in workers]
        for worker, row in zip(self._placement, stages, strict=True):
            wall[worker] += sum(row)
        return {
            "step": step,
            "ended": round(ended, 6),
            "wall_us": wall,
            "stage_us": stages,
            "worker_us": workers,
            "links": [[a, b, messages, n_bytes] for (a, b), (messages, n_bytes) in sorted(self._links.items())],
            "bubble": [round(share, 4) for share in self._recent_bubble(ended)],
            "predicted": None if predicted is None else [round(share, 4) for share in predicted.stages],
        }

    def _recent_bubble(self, ended: float) -> list[float]:
        idle = [sum(row[kind] for kind in BUBBLE_KINDS) for row in self._stages]
        busy = [sum(row) - row[EVALUATION] for row in self._workers]
        for worker, row in zip(self._placement, self._stages, strict=True):
            busy[worker] += sum(row)
        _, idle_before, busy_before = self._windows[0]
        spans = [now - before for now, before in zip(busy, busy_before, strict=True)]
        if ended - self._windows[-1][0] >= _WINDOW_S:
            self._windows.append((ended, idle, busy))
        return [
            (now - before) / spans[worker] if spans[worker] > 0 else 0.0
            for worker, now, before in zip(self._placement, idle, idle_before, strict=True)
        ]


def recent_bubble(line: Mapping[str, Any]) -> float:
    """The bubble of the whole pipeline over the same time as a line's bubbles of stages: the mean of the workers."""
    return float(sum(line["bubble"]) / len(line["wall_us"]))


def await_slowest(account: Account, waited: float, stage: int) -> Account:
    """The account of a worker that had no order for `waited` seconds because others had not ended the step before.

    Where each step's update follows from all stages (clipping), workers wait for the slowest before the next order; the
    ledger sees no order and books `other`. That wait is the schedule's drain, of the stage that the worker did last.
    """
    moved = min(account.worker[OTHER], max(0.0, waited))
    worker = list(account.worker)
    worker[OTHER] -= moved
    row = list(account.stages[stage])
    row[WAIT_DRAIN] += moved
    return account._replace(stages={**account.stages, stage: tuple(row)}, worker=tuple(worker))


def step_bubble(accounts: Sequence[Account]) -> Bubble:
    """The share of each worker's time, evaluations left out, in which it waited for arrays or was held up sending."""
    shares: dict[int, float] = {}
    for account in accounts:
        wall = step_seconds(account)
        for stage, row in account.stages.items():
            shares[stage] = sum(row[kind] for kind in BUBBLE_KINDS) / wall if wall > 0 else 0.0
    return Bubble(sum(shares.values()) / len(accounts), tuple(shares[stage] for stage in sorted(shares)))


def step_seconds(account: Account) -> float:
    """A worker's time of one step: from the end of its step before, without evaluations between them."""
    return account.ended - account.began - account.worker[EVALUATION]


def as_seconds(line: Mapping[str, Any]) -> dict[str, list[dict[str, float]]]:
    """A line's times by name, in seconds: `{"stages": [{"forward": …}, …], "workers": [{"other": …}, …]}`."""
    return {
        "stages": [_named(STAGE_KINDS, row) for row in line["stage_us"]],
        "workers": [_named(WORKER_KINDS, row) for row in line["worker_us"]],
    }


def _named(names: Sequence[str], row: Sequence[int]) -> dict[str, float]:
    return {name: us / 1e6 for name, us in zip(names, row, strict=True)}


def _add(total: list[float], more: Sequence[float]) -> None:
    for kind, seconds in enumerate(more):
        total[kind] += seconds
