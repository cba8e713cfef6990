"""Where every worker's time went, summed over the steps of an attempt: the lines of accounts.jsonl.

Times are cumulative whole microseconds, so that the last line is the total and the difference of two lines is what lies
between them; nothing is lost by leaving lines out. A worker's wall time is the sum of its stages' rows and its own. The
last line of an attempt that came to its end also has what followed the last step: its update and evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.ledger import BUBBLE_KINDS, EVALUATION, OTHER, STAGE_KINDS, WAIT_DRAIN, WORKER_KINDS, Account
from stages.orders import Settled, StepReport


@dataclass(frozen=True, slots=True)
class Bubble:
    """Idle shares of one step, 0 to 1: of the whole pipeline, and by stage (of its worker's time)."""

    total: float
    stages: tuple[float, ...]


class Accounts:
    """The totals so far. `placement[s]` is the worker of stage s."""

    def __init__(self, placement: Sequence[int]) -> None:
        self._placement = tuple(placement)
        self._stages = [[0.0] * len(STAGE_KINDS) for _ in placement]
        self._workers = [[0.0] * len(WORKER_KINDS) for _ in range(max(placement) + 1)]
        self._links: dict[tuple[int, int], list[int]] = {}

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

    def line(self, step: int, ended: float, bubble: Bubble, predicted: Bubble | None) -> dict[str, Any]:
        """The totals after `step`, which ended at `ended` (seconds UTC), with the bubble of that step alone, and the
        one that was predicted last, for steps of whole size."""
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
            "bubble": [round(share, 4) for share in bubble.stages],
            "predicted": None if predicted is None else [round(share, 4) for share in predicted.stages],
        }


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
