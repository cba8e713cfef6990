"""Workers as threads of this process: `--local`, the parity reference of `verify`, and the tests."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from coordinator.plan.blas_threads import BlasThreads, blas_threads
from coordinator.plan.blueprint import Blueprint
from coordinator.train.failures import first_cause, place_of
from coordinator.train.liveness import Liveness
from coordinator.train.pace import ActionPace
from coordinator.train.workers import ClockFix, WorkerPlace
from stages.actions import Program
from stages.arrays import Array
from stages.channel import LocalExchange, unattended_limit
from stages.data import Dataset
from stages.errors import WorkerHung
from stages.layer_state import restore
from stages.orders import Faults, Order, Report, Result, faults_of
from stages.progress import Progress, Seen
from stages.snapshots import Snapshots
from stages.worker import Worker

_LOOK_EVERY_S = 0.25
_JOIN_S = 5.0
"""Seconds that a thread gets to end after it was ordered to: a thread that hangs cannot be ended."""


@dataclass(frozen=True)
class _LocalTicket:
    results: Sequence[queue.SimpleQueue[Result]]
    program: Program
    workers: Sequence[Worker]
    exchange: LocalExchange
    hang_timeout: float
    pace: ActionPace
    require_time: Callable[[], None]

    def collect(self) -> Sequence[Sequence[Report]]:
        """See Ticket."""
        every_s = min(_LOOK_EVERY_S, self.hang_timeout / 4)
        liveness = Liveness(len(self.workers), self.hang_timeout, self.pace.limit(self.hang_timeout), every_s)
        results = [self._await(result, liveness, every_s) for result in self.results]
        failures = [result.failure for result in results if result.failure is not None]
        if failures:
            raise first_cause(failures, self.program)
        for result in results:
            self.pace.take(result.reports)
        return [result.reports for result in results]

    def _await(self, result: queue.SimpleQueue[Result], liveness: Liveness, every_s: float) -> Result:
        while True:
            try:
                return result.get(timeout=every_s)
            except queue.Empty:
                self.require_time()
                self.exchange.attendance.asked()
                hang = liveness.take(time.monotonic(), seen_in_one_process([one.progress for one in self.workers]))
                if hang is not None:
                    raise WorkerHung(f"{place_of(hang.worker, self.program)} hangs: {hang.why}") from None


def seen_in_one_process(workers: Sequence[Progress]) -> Mapping[int, Seen]:
    """Return what the workers are doing. A thread that computes and sleeps may wait for Python's lock, which a thread
    has that waits for a CPU: so nobody counts as asleep unless all do."""
    seen = [worker.seen() for worker in workers]
    all_sleep = all(one.asleep for one in seen)
    return {worker: one._replace(asleep=all_sleep) for worker, one in enumerate(seen)}


class LocalWorkers:
    """One thread a worker; arrays are handed over in memory. `snapshots` makes what writes a worker's checkpoints;
    `restore_from` reads an array of a checkpoint that the job goes on from. Waits call `require_time` at times. Until
    `close`, BLAS has at most `cpus_per_worker` threads."""

    def __init__(
        self,
        blueprint: Blueprint,
        *,
        train: Dataset,
        validation: Dataset | None = None,
        parameters: Mapping[str, Array] | None = None,
        faults: Faults | None = None,
        snapshots: Callable[[], Snapshots] | None = None,
        restore_from: Callable[[str, str, Array], None] | None = None,
        require_time: Callable[[], None] = lambda: None,
    ) -> None:
        resources = blueprint.spec.resources
        self._program = blueprint.program
        self._limits = BlasThreads(blas_threads(blueprint.spec))
        self._hang_timeout, self._require_time = resources.hang_timeout, require_time
        self._pace = ActionPace()
        self._exchange = LocalExchange(unattended_limit(resources.hang_timeout))
        self._workers: list[Worker] = []
        self._inboxes: list[queue.SimpleQueue[tuple[Sequence[Order], queue.SimpleQueue[Result]] | None]] = []
        self._threads = []
        for w in range(blueprint.n_workers):
            setup = blueprint.setup(w, faults_of(faults, w))
            own = None if snapshots is None else snapshots()
            worker = Worker(setup, self._exchange, train=train, validation=validation, snapshots=own)
            if parameters is not None:
                for stage in worker.stages.values():
                    stage.load(parameters)
            if restore_from is not None:
                restore(worker.stages.values(), restore_from)
            self._workers.append(worker)
            inbox: queue.SimpleQueue[tuple[Sequence[Order], queue.SimpleQueue[Result]] | None] = queue.SimpleQueue()
            self._inboxes.append(inbox)
            self._threads.append(
                threading.Thread(target=self._serve, args=(worker, inbox), name=f"worker-{w}", daemon=True)
            )
        for thread in self._threads:
            thread.start()

    @property
    def memory_limit(self) -> None:
        """See Workers. All threads share the memory of this process, so no worker has a limit of its own."""

    def places(self) -> Sequence[WorkerPlace]:
        """See Workers."""
        return ()

    def submit(self, orders: Sequence[Order]) -> _LocalTicket:
        """See Workers."""
        results: list[queue.SimpleQueue[Result]] = [queue.SimpleQueue() for _ in self._inboxes]
        for inbox, result in zip(self._inboxes, results, strict=True):
            inbox.put((tuple(orders), result))
        of_all = self._program, self._workers, self._exchange, self._hang_timeout, self._pace, self._require_time
        return _LocalTicket(results, *of_all)

    def clocks(self) -> Sequence[ClockFix]:
        """See Workers."""
        return [ClockFix() for _ in self._threads]

    def close(self) -> None:
        """See Workers."""
        self._exchange.close()
        for inbox in self._inboxes:
            inbox.put(None)
        for thread in self._threads:
            thread.join(_JOIN_S)
        self._limits.close()

    def _serve(
        self, worker: Worker, inbox: queue.SimpleQueue[tuple[Sequence[Order], queue.SimpleQueue[Result]] | None]
    ) -> None:
        while (task := inbox.get()) is not None:
            orders, result = task
            outcome = worker.run(orders)
            if outcome.failure is not None:
                self._exchange.close()
            result.put(outcome)
