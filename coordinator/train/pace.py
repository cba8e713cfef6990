"""How long the actions of a run normally take, and so how soon a worker without progress is found.

[Note: two limits] `resources.hang_timeout` is the limit of whatever looks like a hang. If there is proof that a worker
cannot go on (see [Note: who hangs]), the limit is 3 × the slowest normal action + 0.75 s. With the times between two
questions and for an answer, it is found within 3 × the slowest normal action + 2 s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from stages.ledger import UPDATE
from stages.orders import Report, StepReport

_FACTOR, _MORE_S = 3.0, 0.75
_STEPS = 64


class ActionPace:
    """The slowest actions of the last steps that had a timeline, which is about one a second."""

    def __init__(self) -> None:
        self._slowest: deque[float] = deque(maxlen=_STEPS)

    def take(self, reports: Sequence[Report]) -> None:
        """Take in the reports of a worker."""
        for report in reports:
            if isinstance(report, StepReport) and report.timeline:
                actions = (end - start for _, start, end in report.timeline)
                updates = (row[UPDATE] for row in report.account.stages.values())
                self._slowest.append(max(*actions, *updates))

    @property
    def slowest(self) -> float | None:
        """Seconds of the slowest normal action; None before the first step."""
        return max(self._slowest, default=None)

    def limit(self, hang_timeout: float) -> float:
        """Return after how many seconds without progress a worker that cannot go on counts as hanging."""
        slowest = self.slowest
        return hang_timeout if slowest is None else min(hang_timeout, _FACTOR * slowest + _MORE_S)
