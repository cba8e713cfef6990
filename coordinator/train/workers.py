"""The port to the workers: threads of this process (`local.py`) or Ray actors (`cluster.actors.ray_workers`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from stages.arrays import Array
from stages.network import name_order
from stages.orders import Gather, Order, Part, Report


class Ticket(Protocol):
    """Orders that were given to every worker and whose reports have not been asked for yet."""

    def collect(self) -> Sequence[Sequence[Report]]:
        """`reports[w][i]`: what worker w reported for order i. Waits. Raises JobFailed with the first cause."""


class ClockFix(NamedTuple):
    """What to add to a worker's monotonic clock to have this process's, in seconds, and how far that may be wrong."""

    offset: float = 0.0
    error: float = 0.0


class WorkerPlace(NamedTuple):
    """The process of a worker. `node` is Ray's id of its host."""

    worker: int
    host: str
    node: str
    pid: int


class Workers(Protocol):
    """All workers of a job."""

    @property
    def memory_limit(self) -> int | None:
        """Bytes that each worker may take, data and all; None for no limit."""

    def places(self) -> Sequence[WorkerPlace]:
        """Where each worker is; empty if they are threads of this process."""

    def submit(self, orders: Sequence[Order]) -> Ticket:
        """Give the same orders to every worker, one call each; several submissions are performed one after another."""

    def clocks(self) -> Sequence[ClockFix]:
        """How each worker's clock stands to that of this process."""

    def close(self) -> None:
        """End the workers. May be called twice."""


def gather(workers: Workers, part: Part) -> Mapping[str, Array]:
    """Every parameter, or every gradient of the last step, of all stages, by name in the order of layers."""
    reports = workers.submit([Gather(part=part)]).collect()
    found: dict[str, Array] = {}
    for (report,) in reports:
        assert isinstance(report, Mapping), "Gather is answered with arrays"
        # what threads of this process hand over are views of parameters that go on changing
        found.update({name: array.copy() if array.flags.writeable else array for name, array in report.items()})
    return dict(sorted(found.items(), key=lambda item: _saved_order(item[0])))


def _saved_order(name: str) -> tuple[tuple[int, ...], bool]:
    path, last = name_order(name)
    return path, last != "weight"
