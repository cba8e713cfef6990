"""Sums every worker's time by kind over the steps of an attempt: the lines of accounts.jsonl.

Times are cumulative whole microseconds, so the last line is the total, and the difference of two lines is the time
between them; lines can be left out without loss. A worker's wall time is the sum of its stages' rows and its own row.
The last line of an attempt that ended regularly also has the time after the last step: its update and evaluation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from stages.ledger import BUBBLE_KINDS, EVALUATION, OTHER, RECOVERY, STAGE_KINDS, WAIT_DRAIN, WORKER_KINDS, Account
from stages.orders import Settled, StepReport

_WINDOW_S = 1.0
"""A line's bubble covers one to two such windows, because the bubbles of single steps differ too much."""


@dataclass(frozen=True, slots=True)
class Bubble:
    """Idle shares, 0 to 1: of the whole pipeline, and of each stage (as a share of its worker's time)."""

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
        """Take in one step, with `reports[w]` of worker w. Return its bubble."""
        self.add_rest(reports)
        return step_bubble([report.account for report in reports])

    def add_rest(self, reports: Sequence[StepReport | Settled]) -> None:
        """Take in reports without computing a bubble."""
        for worker, report in enumerate(reports):
            _add(self._workers[worker], report.account.worker)
            for stage, seconds in report.account.stages.items():
                _add(self._stages[stage], seconds)
            for to, (messages, n_bytes) in report.sent.items():
                link = self._links.setdefault((worker, to), [0, 0])
                link[0] += messages
                link[1] += n_bytes

    def line(self, step: int, ended: float, predicted: Bubble | None) -> dict[str, Any]:
        """Return the totals after step `step` (from 1), which ended at `ended` (seconds UTC), with each stage's bubble
        over the last one to two seconds, or at least one step, and its latest predicted bubble, which is for steps of
        full batches."""
        return self.snapshot(step, ended, predicted).as_dict()

    def snapshot(self, step: int, ended: float, predicted: Bubble | None) -> AccountsLine:
        """Return the line for later: only the totals are copied now."""
        taken = AccountsLine(
            step,
            ended,
            predicted,
            self._placement,
            [row[:] for row in self._stages],
            [row[:] for row in self._workers],
            {link: (messages, n_bytes) for link, (messages, n_bytes) in self._links.items()},
            self._windows[0],
        )
        if ended - self._windows[-1][0] >= _WINDOW_S:
            self._windows.append((ended, *taken.idle_and_busy()))
        return taken


@dataclass(slots=True)
class AccountsLine:
    """A line of accounts.jsonl that is put together when it is first read: at small steps few of them are."""

    step: int
    ended: float
    predicted: Bubble | None
    placement: tuple[int, ...]
    stages: list[list[float]]
    workers: list[list[float]]
    links: dict[tuple[int, int], tuple[int, int]]
    since: tuple[float, list[float], list[float]]
    """The beginning of the window of the bubbles: when, and each stage's idle and each worker's busy seconds then."""
    _made: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the line, see `Accounts.line`."""
        if self._made is None:
            self._made = self._make()
        return self._made

    def _make(self) -> dict[str, Any]:
        stages = [[round(1e6 * seconds) for seconds in row] for row in self.stages]
        workers = [[round(1e6 * seconds) for seconds in row] for row in self.workers]
        wall = [sum(row) for row in workers]
        for worker, row in zip(self.placement, stages, strict=True):
            wall[worker] += sum(row)
        return {
            "step": self.step,
            "ended": round(self.ended, 6),
            "wall_us": wall,
            "stage_us": stages,
            "worker_us": workers,
            "links": [[a, b, messages, n_bytes] for (a, b), (messages, n_bytes) in sorted(self.links.items())],
            "bubble": [round(share, 4) for share in self._recent_bubble()],
            "predicted": None if self.predicted is None else [round(share, 4) for share in self.predicted.stages],
        }

    def idle_and_busy(self) -> tuple[list[float], list[float]]:
        """Return each stage's idle seconds, and each worker's seconds without evaluations and recoveries."""
        idle = [sum(row[kind] for kind in BUBBLE_KINDS) for row in self.stages]
        busy = [sum(row) - row[EVALUATION] - row[RECOVERY] for row in self.workers]
        for worker, row in zip(self.placement, self.stages, strict=True):
            busy[worker] += sum(row)
        return idle, busy

    def _recent_bubble(self) -> list[float]:
        idle, busy = self.idle_and_busy()
        _, idle_before, busy_before = self.since
        spans = [now - before for now, before in zip(busy, busy_before, strict=True)]
        return [
            (now - before) / spans[worker] if spans[worker] > 0 else 0.0
            for worker, now, before in zip(self.placement, idle, idle_before, strict=True)
        ]


def recent_bubble(line: Mapping[str, Any]) -> float:
    """Return the bubble of the whole pipeline over the time of a line's stage bubbles: the mean of the workers."""
    return float(sum(line["bubble"]) / len(line["wall_us"]))


def await_slowest(account: Account, waited: float, stage: int) -> Account:
    """Return the account of a worker that had no order for `waited` seconds because others had not ended the step
    before.

    If each update depends on all stages (clipping), workers wait for the slowest one before the next order. The ledger
    books that time as `other`, as there was no order. It belongs to the schedule's drain, at the worker's last stage.
    """
    moved = min(account.worker[OTHER], max(0.0, waited))
    worker = list(account.worker)
    worker[OTHER] -= moved
    row = list(account.stages[stage])
    row[WAIT_DRAIN] += moved
    return account._replace(stages={**account.stages, stage: tuple(row)}, worker=tuple(worker))


def step_bubble(accounts: Sequence[Account]) -> Bubble:
    """Return the share of workers' time, without evaluations, in which they waited for arrays or were held up while
    sending."""
    shares: dict[int, float] = {}
    for account in accounts:
        wall = step_seconds(account)
        for stage, row in account.stages.items():
            shares[stage] = sum(row[kind] for kind in BUBBLE_KINDS) / wall if wall > 0 else 0.0
    return Bubble(sum(shares.values()) / len(accounts), tuple(shares[stage] for stage in sorted(shares)))


def step_seconds(account: Account) -> float:
    """Return a worker's time of one step: since the end of its step before, without evaluations and recoveries between
    them."""
    return account.ended - account.began - account.worker[EVALUATION] - account.worker[RECOVERY]


def as_seconds(line: Mapping[str, Any]) -> dict[str, list[dict[str, float]]]:
    """Return a line's times by name, in seconds: `{"stages": [{"forward": …}, …], "workers": [{"other": …}, …]}`."""
    return {
        "stages": [_named(STAGE_KINDS, row) for row in line["stage_us"]],
        "workers": [_named(WORKER_KINDS, row) for row in line["worker_us"]],
    }


def _named(names: Sequence[str], row: Sequence[int]) -> dict[str, float]:
    return {name: us / 1e6 for name, us in zip(names, row, strict=True)}


def _add(total: list[float], more: Sequence[float]) -> None:
    for kind, seconds in enumerate(more):
        total[kind] += seconds
