"""The Ray actor around one Worker: limits, data, channel and calls from outside. It does no arithmetic itself."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cluster.actors.asking import look_at
from cluster.actors.channel import WorkerChannel
from cluster.actors.checkpoint_files import RemoteFile, layer_file_here
from cluster.actors.fault_tools import WorkerFaultTools
from cluster.actors.host_processes import ignore_end_signals
from cluster.actors.packing import pack_result, unpack_orders
from cluster.actors.process_limits import begin_measuring, limit_memory, spare_what_is_loaded, warm_up_blas
from cluster.actors.protocol import LinkChoice, WorkerAddress, generation_of
from cluster.actors.runner_link import RunnerLink, files_here, log_line, log_to_file, log_to_runner
from cluster.checkpoints.folder import NO_STATE, CheckpointReader, StatePlaces
from cluster.checkpoints.given_weights import GivenWeights
from cluster.checkpoints.layer_files import LayerFiles
from cluster.checkpoints.manifest import MANIFEST
from cluster.data.checks import Checking
from cluster.data.rules import SourceRules
from cluster.data.sources import JobData, load_data
from coordinator import run_files
from coordinator.job.spec import JobSpec, parse_job
from coordinator.plan.blas_threads import BlasThreads, blas_threads
from coordinator.train.liveness import Sight
from stages.arrays import Array
from stages.channel import unattended_limit
from stages.errors import InvalidData, UserMistake, message_and_trace
from stages.faults import FaultPlan
from stages.layer_state import layer_states, restore
from stages.orders import Failure, Fault, Order, Result, WorkerSetup
from stages.process_memory import keep_freed_memory, peak_resident_bytes, return_freed_memory
from stages.products import load_blas
from stages.progress import Doing, Seen
from stages.worker import Worker


class WorkerActor:
    """Holds one worker. `cluster.actors.ray_workers` makes an actor of this class, and calls `bind`, `admit`,
    `connect`, `prepare` and `run` in this order.

    If another worker of the job was lost, it calls `drop`, `bind`, `admit`, `connect` and `go_back`, and `run` again. A
    spare process (`worker` is None) is told by `become` which worker it is.
    """

    def __init__(
        self,
        worker: int | None,
        hang_timeout: float,
        link: RunnerLink | None = None,
        choice: LinkChoice = LinkChoice(),
    ) -> None:
        import ray

        ignore_end_signals()
        self._number, self._hang_timeout, self._link, self._choice = -1, hang_timeout, link, choice
        self._node = ray.get_runtime_context().get_node_id()
        if worker is not None:
            self.become(worker)
        self._channel: WorkerChannel | None = None
        self._worker: Worker | None = None
        self._snapshots: LayerFiles | None = None
        self._again: Callable[..., Worker] | None = None  # makes a worker with the same data
        self._data: JobData | None = None  # stays if the worker is prepared again, for another plan
        self._files: Any = None  # the actor CheckpointFiles, if workers on other hosts need one
        self._faults = FaultPlan()
        self._baseline = 0
        self._limit: int | None = None
        self._limit_name = "resources.memory_per_worker"

    def become(self, worker: int) -> None:
        """Be this worker from now on."""
        self._number, link = worker, self._link
        if link is not None:
            if link.node == self._node:
                log_to_file(Path(link.logs) / run_files.log_file(worker))
            else:
                log_to_runner(link.runner, worker)
            log_line(f"worker {worker} starts: process {os.getpid()} on {os.uname().nodename}")

    def warm_up(self) -> None:
        """Load what a worker needs, before it is known which one this process is."""
        load_blas()

    def bind(self, connection: int = 0) -> WorkerAddress:
        """Open the inbox, and return its address. `connection` counts how often the workers were connected anew; what
        an earlier channel holds is dropped."""
        import ray

        if self._channel is not None:
            self._channel.close()
        ip = ray.util.get_node_ip_address()
        self._channel = WorkerChannel(
            self._number,
            node=self._node,
            host_ip=ip,
            timeout_s=self._hang_timeout,
            unattended_s=unattended_limit(self._hang_timeout),
            generation=generation_of(1 if self._link is None else self._link.attempt, connection),
            shares_memory=self._choice.shares_memory,
        )
        return self._channel.address

    def admit(self, addresses: Sequence[WorkerAddress]) -> None:
        """Allow connections of the other workers. All workers do this before any of them connects."""
        assert self._channel is not None, "bind comes first"
        self._channel.admit(addresses)

    def drop(self) -> None:
        """End the step in progress at its next wait or message: its result is a failure. Called while `run` runs."""
        if self._channel is not None:
            self._channel.give_up()

    def connect(self, addresses: Sequence[WorkerAddress], room: Mapping[int, int], cpus: int) -> None:
        """Connect to the other workers. `room` has the bytes of memory for what is sent to each of them; every worker
        has `cpus` CPUs."""
        assert self._channel is not None, "bind comes first"
        spin = self._choice.spin
        if spin is None:
            here = sum(address.node == self._node for address in addresses)
            spin = here * cpus <= len(os.sched_getaffinity(0))
        self._channel.connect(addresses, room=room, spin=spin)

    def prepare(
        self,
        setup: WorkerSetup,
        document: Mapping[str, Any],
        fingerprint: int,
        weights: int | None = None,
        places_of_state: StatePlaces = NO_STATE,
        checked: Mapping[str, int] | None = None,
        recovering_since: float | None = None,
    ) -> Result:
        """Read the data if a stage needs it, set the memory limit, build the stages, and load their given weights.

        `fingerprint` is the checksum of the data, `weights` that of `model.weights`. A checkpoint to begin with
        replaces the weights. `checked` has the checksums of files that were checked (see `JobData.checked`).
        `recovering_since`: see Ledger; None for a run that begins.
        """
        assert self._channel is not None, "bind comes first"
        self._channel.seal()
        spec = parse_job(dict(document))
        try:
            train = validation = None
            data_bytes = 0
            # the environment sets this too, but OpenBLAS takes no more threads from it than there are cores
            self._threads = BlasThreads(blas_threads(spec))
            warm_up_blas(spec.precision, _widest(setup))
            spare_what_is_loaded()
            with contextlib.ExitStack() as files:
                places: Mapping[str, str] = {}
                rules = None if self._link is None else self._link.rules
                reads_data = bool({0, len(setup.bounds) - 2} & set(setup.stages))
                if reads_data or weights is not None:
                    places = files.enter_context(files_here(self._link, self._node))
                if rules is not None and places:
                    rules = rules.with_files(places.values())
                if reads_data:
                    data = self._data or load_data(spec.relocated(places), rules, Checking(known=checked or {}))
                    if data.fingerprint() != fingerprint:
                        raise self._another("data", spec.data.source)
                    self._data = data
                    train, validation, data_bytes = data.train, data.validation, data.nbytes
                self._take_limit(spec, data_bytes)
                folder, resume = places_of_state.folder, places_of_state.resume
                self._files = places_of_state.files
                self._snapshots = (
                    None if folder is None else LayerFiles(Path(folder), places_of_state.token, self._opened_there())
                )
                self._faults = self._planned(setup.faults, folder)
                self._again = partial(
                    Worker,
                    setup,
                    faults=self._faults,
                    train=train,
                    validation=validation,
                    resident_before=self._baseline,
                    snapshots=self._snapshots,
                )
                self._worker = self._again(self._channel, recovering_since=recovering_since)
                if resume is not None:
                    reader = files.enter_context(contextlib.closing(self._reader(Path(resume))))
                    restore(self._worker.stages.values(), reader.read)
                elif weights is not None:
                    self._fill(spec.relocated(places), rules, weights)
            begin_measuring()  # the pages of a file of weights, which was mapped, are not the job's
        except Exception as error:
            return self._logged(Result(failure=self._failure(error)))
        if self._link is not None:
            log_line(f"ready: stages {', '.join(map(str, setup.stages))}")
        return Result()

    def _planned(self, faults: Sequence[Fault], folder: str | None) -> FaultPlan:
        tools = WorkerFaultTools(
            self._number,
            folder,
            self._files,
            channel=lambda: self._channel,
            snapshots=lambda: self._snapshots,
            layers=lambda: () if self._worker is None else layer_states(self._worker.stages.values()).keys(),
        )
        return FaultPlan(faults, tools)

    def _fill(self, spec: JobSpec, rules: SourceRules | None, weights: int) -> None:
        assert self._worker is not None, "it is made before"
        with GivenWeights(spec, rules) as given:
            if given.checksum() != weights:
                raise self._another("file of weights", given.path)
            for stage in self._worker.stages.values():
                stage.fill(given.read)

    def go_back(
        self,
        document: Mapping[str, Any],
        weights: int | None,
        step: int,
        states: StatePlaces,
        recovering_since: float | None,
    ) -> Result:
        """Drop what is left of the step in progress, and take the state after update `step` again.

        `states` names the checkpoint of that step; without one, the stages begin with the weights of the start.
        Process, data and compiled stages stay. The state is read from this process's memory if it still holds a copy
        of that very step.
        """
        assert self._channel is not None, "bind comes first"
        assert self._worker is not None, "prepare comes first"
        assert self._again is not None, "prepare comes first"
        self._channel.seal()
        stages = self._worker.stages
        try:
            if self._snapshots is not None:
                self._snapshots.forget(states.token)
            for stage in stages.values():
                stage.discard()
            if states.resume is None:
                self._begin_again(parse_job(dict(document)), weights)
            else:
                self._restore(Path(states.resume), step)
        except Exception as error:
            return self._logged(Result(failure=self._failure(error)))
        self._worker = self._again(self._channel, stages=stages, recovering_since=recovering_since)
        if self._link is not None:
            log_line(f"went back to step {step}")
        return Result()

    def _begin_again(self, spec: JobSpec, weights: int | None) -> None:
        assert self._worker is not None, "prepare comes first"
        for stage in self._worker.stages.values():
            stage.begin_again(spec.model_spec())
        if weights is None:
            return
        with files_here(self._link, self._node) as places:
            rules = None if self._link is None else self._link.rules
            if rules is not None and places:
                rules = rules.with_files(places.values())
            self._fill(spec.relocated(places), rules, weights)

    def _opened_there(self) -> Callable[[Path], RemoteFile] | None:
        """Return what opens files of checkpoints for writing on the host that has the run's folder."""
        return None if self._files is None else partial(RemoteFile, self._files)

    def _reader(self, place: Path) -> CheckpointReader:
        """Return a reader of a checkpoint, which brings its files here if this host does not have them."""
        if self._files is None or (place / MANIFEST).is_file():
            return CheckpointReader(place)
        return CheckpointReader(place, partial(layer_file_here, self._files, place))

    def _restore(self, place: Path, step: int) -> None:
        assert self._worker is not None, "prepare comes first"
        copy = None if self._snapshots is None else self._snapshots.copy_of(step)
        with contextlib.closing(self._reader(place)) as reader:

            def read(layer: str, name: str, out: Array) -> None:
                if copy is not None:
                    with contextlib.suppress(KeyError):  # a tied weight of another worker's layer
                        return copy(layer, name, out)
                return reader.read(layer, name, out)

            restore(self._worker.stages.values(), read)

    def _take_limit(self, spec: JobSpec, data_bytes: int) -> None:
        return_freed_memory()  # of warming up and of reading data
        self._baseline = begin_measuring() - data_bytes
        keep_freed_memory()
        self._limit = spec.resources.memory_per_worker
        if self._limit is None and self._link is not None:
            self._limit = self._link.memory_limit(spec.resources.cpus_per_worker)
            self._limit_name = "a worker's share of the cluster's memory"
        if self._limit is not None:
            assert self._channel is not None, "bind comes first"
            apart = data_bytes + self._channel.shared_bytes  # which the kernel's limit does not count
            limit_memory(max(0, self._limit - apart))

    def _another(self, what: str, source: str) -> InvalidData:
        return InvalidData(
            f"{source}: read by worker {self._number} on {os.uname().nodename}, it is not the {what} that the job "
            "began with; give all hosts the same file"
        )

    def run(self, packed: bytes) -> Result | bytes:
        """Perform the packed orders, and return the result, packed or not; it has the failure, if any."""
        orders = unpack_orders(packed)
        return pack_result(orders, self._run(orders))

    def _run(self, orders: Sequence[Order]) -> Result:
        assert self._worker is not None, "prepare comes first"
        is_first = self._worker.failure is None
        result = self._worker.run(orders)
        failure = result.failure
        if failure is None:
            return result
        message = failure.message + self._memory_hint(failure.message)
        result = replace(result, failure=replace(failure, message=message, host=os.uname().nodename))
        return self._logged(result) if is_first else result

    def _logged(self, result: Result) -> Result:
        """Return the result, and log its failure, if any."""
        if self._link is not None and result.failure is not None:
            log_line(log_entry(result.failure))
        return result

    def memory(self) -> dict[str, int]:
        """Return bytes: the process's peak above its baseline, and the arrays of its stages by kind."""
        assert self._worker is not None, "prepare comes first"
        stages = self._worker.stages.values()
        return {
            "peak_above_baseline": peak_resident_bytes() - self._baseline,
            "weights": sum(s.parameters.values.nbytes for s in stages),
            "gradients": sum(s.parameters.gradients.nbytes for s in stages),
            "optimizer": sum(s.optimizer.nbytes for s in stages),
            "buffers": sum(s.buffers.held_bytes for s in stages),
        }

    def seen(self) -> Seen:
        """Return what the worker is doing now. Called while `run` runs."""
        if self._channel is not None:
            self._channel.attendance.asked()
        if self._worker is None:
            return Seen(Doing.PREPARING)
        seen = self._worker.progress.seen()
        return seen if self._channel is None else seen._replace(links=self._channel.links_seen())

    def look_at(self, pid: int, thread: int | None, actor_class: str) -> Sight:
        """Look at another process of this host, see `look_at` of asking.py. Called while `run` runs."""
        return look_at(pid, thread, actor_class)

    def plan_fault(self, fault: Fault) -> int | None:
        """Let a fault strike later; see FaultPlan.add. Called while `run` runs."""
        return self._faults.add(fault)

    def now(self) -> float:
        """Return the time of this host's monotonic clock, in seconds. Called while `run` runs."""
        return time.perf_counter()

    def _failure(self, error: Exception) -> Failure:
        message, trace = message_and_trace(error)
        return Failure(
            kind="raised",
            worker=self._number,
            step=None,
            action=None,
            message=message + self._memory_hint(error),
            traceback=trace,
            host=os.uname().nodename,
            mistake=isinstance(error, UserMistake),
        )

    def _memory_hint(self, error: object) -> str:
        if "MemoryError" not in f"{type(error).__name__} {error}" or self._limit is None:
            return ""
        return f" ({self._limit_name} allows {self._limit:,} bytes; `pipetrain plan` shows how much is needed)"


def _widest(setup: WorkerSetup) -> int:
    """Return the most rows of a weight in the worker's stages."""
    ops, bounds = setup.model.network.ops, setup.bounds
    own = [op for s in setup.stages for op in ops[bounds[s] : bounds[s + 1]]]
    return max((parameter.shape[0] for op in own for parameter in op.layer.parameters), default=0)


def log_entry(failure: Failure) -> str:
    """Return the log's text about a worker's failure: `failed …` for a cause, `gave up …` if it waited in vain."""
    where = f" in {failure.action}{failure.when}" if failure.action is not None else ""
    if failure.kind in ("timeout", "closed"):
        return f"gave up{where}: {failure.message}; the cause may be in another worker's log"
    return f"failed{where}: {failure.message}\n{failure.traceback}".rstrip()
