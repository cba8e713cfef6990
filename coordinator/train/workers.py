"""The port to the workers: threads of this process (`local.py`) or Ray actors (`cluster.actors.ray_workers`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from coordinator.program.shared_cores import TURN_S, SharedCores
from stages.arrays import Array
from stages.network import name_order
from stages.orders import Gather, Order, Part, Report


class Ticket(Protocol):
    """Orders that were given to every worker, and whose reports can be collected once."""

    def collect(self) -> Sequence[Sequence[Report]]:
        """Wait for the reports. Return `reports[w][i]`: worker w's report on order i. Raises JobFailed with the first
        cause."""


class ClockFix(NamedTuple):
    """The seconds to add to a worker's monotonic clock to get the time of this process's clock, and their possible
    error."""

    offset: float = 0.0
    error: float = 0.0


class WorkerPlace(NamedTuple):
    """The process of a worker. `node` is Ray's id of its host, `cores` are those that the process may use; 0 if that is
    not known."""

    worker: int
    host: str
    node: str
    pid: int
    cores: int = 0


def shared_cores(places: Sequence[WorkerPlace], threads: int) -> SharedCores | None:
    """Return which workers share cores, each with `threads` threads; None if that is not known."""
    if not places or not all(place.cores for place in places):
        return None
    nodes = list(dict.fromkeys(place.node for place in places))
    cores = {place.node: place.cores for place in places}
    return SharedCores(
        host_of=tuple(nodes.index(place.node) for place in places),
        cores=tuple(cores[node] for node in nodes),
        threads=threads,
        turn=TURN_S,
    )


class Workers(Protocol):
    """All workers of a job."""

    @property
    def memory_limit(self) -> int | None:
        """Bytes that each worker may take, including its data; None for no limit."""

    def places(self) -> Sequence[WorkerPlace]:
        """Return the place of each worker; none if they are threads of this process."""

    def submit(self, orders: Sequence[Order]) -> Ticket:
        """Give the same orders to every worker, one call each; several submissions are performed one after another."""

    def clocks(self) -> Sequence[ClockFix]:
        """Return the difference between each worker's clock and that of this process."""

    def close(self) -> None:
        """End the workers. May be called twice."""


def gather(workers: Workers, part: Part) -> Mapping[str, Array]:
    """Return every parameter, or every gradient of the last step, of all stages, by name in layer order."""
    reports = workers.submit([Gather(part=part)]).collect()
    found: dict[str, Array] = {}
    for (report,) in reports:
        assert isinstance(report, Mapping), "Gather is answered with arrays"
        # threads of this process return views of parameters that change later
        found.update({name: array.copy() if array.flags.writeable else array for name, array in report.items()})
    return dict(sorted(found.items(), key=lambda item: _saved_order(item[0])))


def _saved_order(name: str) -> tuple[tuple[int, ...], bool]:
    path, last = name_order(name)
    return path, last != "weight"
