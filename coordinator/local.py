"""Workers as threads of this process: `--local`, the parity reference of `verify`, and the tests."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coordinator.blas_threads import BlasThreads, blas_threads
from coordinator.blueprint import Blueprint
from coordinator.failures import first_cause
from coordinator.workers import ClockFix
from stages.actions import Program
from stages.arrays import Array
from stages.channel import LocalExchange
from stages.data import Dataset
from stages.orders import Fault, Order, Report, Result
from stages.worker import Worker


@dataclass(frozen=True)
class _LocalTicket:
    results: Sequence[queue.SimpleQueue[Result]]
    program: Program

    def collect(self) -> Sequence[Sequence[Report]]:
        results = [result.get() for result in self.results]
        failures = [result.failure for result in results if result.failure is not None]
        if failures:
            raise first_cause(failures, self.program)
        return [result.reports for result in results]


class LocalWorkers:
    """One thread a worker; arrays are handed over in memory. BLAS is held to `cpus_per_worker` threads meanwhile."""

    def __init__(
        self,
        blueprint: Blueprint,
        *,
        train: Dataset,
        validation: Dataset | None = None,
        parameters: Mapping[str, Array] | None = None,
        faults: Mapping[int, Fault] | None = None,
    ) -> None:
        resources = blueprint.spec.resources
        self._program = blueprint.program
        self._limits = BlasThreads(blas_threads(blueprint.spec))
        self._exchange = LocalExchange(resources.hang_timeout)
        self._inboxes: list[queue.SimpleQueue[tuple[Sequence[Order], queue.SimpleQueue[Result]] | None]] = []
        self._threads = []
        for w in range(blueprint.n_workers):
            setup = blueprint.setup(w, (faults or {}).get(w))
            worker = Worker(setup, self._exchange, train=train, validation=validation)
            if parameters is not None:
                worker.load(dict(parameters))
            inbox: queue.SimpleQueue[tuple[Sequence[Order], queue.SimpleQueue[Result]] | None] = queue.SimpleQueue()
            self._inboxes.append(inbox)
            self._threads.append(
                threading.Thread(target=self._serve, args=(worker, inbox), name=f"worker-{w}", daemon=True)
            )
        for thread in self._threads:
            thread.start()

    def submit(self, orders: Sequence[Order]) -> _LocalTicket:
        """See Workers."""
        results: list[queue.SimpleQueue[Result]] = [queue.SimpleQueue() for _ in self._inboxes]
        for inbox, result in zip(self._inboxes, results, strict=True):
            inbox.put((tuple(orders), result))
        return _LocalTicket(results, self._program)

    def clocks(self) -> Sequence[ClockFix]:
        """See Workers."""
        return [ClockFix() for _ in self._threads]

    def close(self) -> None:
        """See Workers."""
        self._exchange.close()
        for inbox in self._inboxes:
            inbox.put(None)
        for thread in self._threads:
            thread.join()
        self._limits.close()

    def _serve(
        self, worker: Worker, inbox: queue.SimpleQueue[tuple[Sequence[Order], queue.SimpleQueue[Result]] | None]
    ) -> None:
        broken: Result | None = None
        while (task := inbox.get()) is not None:
            orders, result = task
            outcome = broken or worker.run(orders)
            if outcome.failure is not None and broken is None:
                broken = Result(failure=outcome.failure)
                self._exchange.close()
            result.put(outcome)
