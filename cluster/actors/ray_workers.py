"""Workers as Ray actors: an actor for each worker, in a placement group, with one call to each worker per submission.

[Note: no retries] Ray's own restarts and retries stay off: a call performed twice would add gradients twice.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.actors.clocks import Clocks, clock_name
from cluster.actors.host_processes import end_ray_process
from cluster.actors.protocol import LinkChoice, WorkerAddress
from cluster.actors.ray_placement import release, reserve
from cluster.actors.ray_session import full_here
from cluster.actors.runner_link import RunnerLink
from cluster.actors.worker_actor import CONTROL, WorkerActor
from cluster.checkpoints.folder import NO_STATE, StatePlaces
from coordinator.plan.blueprint import Blueprint
from coordinator.plan.link_room import link_room
from coordinator.train.failures import first_cause, place_of
from coordinator.train.liveness import Liveness, activity_text
from coordinator.train.workers import ClockFix, WorkerPlace
from stages.actions import Program
from stages.errors import JobFailed, StoppedEarly, WorkerHung, WorkerLost
from stages.orders import Failure, Fault, Order, Report, Result
from stages.progress import Seen

_START_TIMEOUT_S = 120.0
_PREPARE_TIMEOUT_S = 900.0  # enough for a large data set over a slow network
_PROBE_ANSWER_S = 3.0  # a running process answers at once
_WATCH_EVERY_S = 1.0
ACTOR_NAME = "PipetrainWorker"
"""The name of the actor's class, by which worker processes are recognised."""


class RayWorkers:
    """The workers of one job. `ray` is the initialised module (see `cluster.actors.ray_session`).

    `fingerprint` and `weights` are the checksums of the data and of `model.weights` when the job began, `checked` those
    of files that need not be read again (`JobData.checked`).

    `link` is not None if the service's runner makes them. The wait for room in the cluster ends if `give_up` returns
    True, and calls `on_wait` with what it waits for. Raises NotEnoughResources if the cluster is too small, JobFailed
    if a worker cannot start, StoppedEarly on `give_up`.
    """

    def __init__(
        self,
        ray: Any,
        blueprint: Blueprint,
        *,
        fingerprint: int,
        checked: Mapping[str, int] | None = None,
        weights: int | None = None,
        faults: Mapping[int, Fault] | None = None,
        link: RunnerLink | None = None,
        give_up: Callable[[], bool] = lambda: False,
        on_wait: Callable[[str], None] = lambda text: None,
        links: LinkChoice = LinkChoice(),
        places_of_state: StatePlaces = NO_STATE,
    ) -> None:
        self._ray, self._link, self._give_up, self._on_wait, self._links = ray, link, give_up, on_wait, links
        self._program = blueprint.program
        self._hang_timeout = blueprint.spec.resources.hang_timeout
        self._group: Any = None
        self._actors: list[Any] = []
        self.addresses: list[WorkerAddress] = []
        self.memory_limit: int | None = None
        """The most bytes that each worker may take, including its data; None for no limit."""
        try:
            self._start(blueprint)
            document = blueprint.spec.document()
            faults = faults or {}
            setups = [blueprint.setup(w, faults.get(w)) for w in range(blueprint.n_workers)]
            self._collect(
                [
                    a.prepare.remote(s, document, fingerprint, weights, places_of_state, dict(checked or {}))
                    for a, s in zip(self._actors, setups, strict=True)
                ],
                _PREPARE_TIMEOUT_S,
            )
        except BaseException:
            self.close()
            raise

    def submit(self, orders: Sequence[Order]) -> _RayTicket:
        """See Workers."""
        orders = tuple(orders)
        return _RayTicket([actor.run.remote(orders) for actor in self._actors], self._collect)

    def memory(self) -> list[dict[str, int]]:
        """Return each worker's memory in bytes (see WorkerActor.memory)."""
        return list(self._plain([actor.memory.remote() for actor in self._actors], "reporting memory"))

    def places(self) -> Sequence[WorkerPlace]:
        """See Workers."""
        return [WorkerPlace(at.worker, at.host, at.node, at.pid) for at in self.addresses]

    def clocks(self) -> Sequence[ClockFix]:
        """See Workers."""
        return self._clocks.fixes()

    def _asks_for_time(self, worker: int) -> Callable[[], float] | None:
        if self.addresses[worker].clock == clock_name():
            return None
        return lambda: float(self._ray.get(self._actors[worker].now.remote(), timeout=_PROBE_ANSWER_S))

    def close(self) -> None:
        """See Workers. Ends every worker process, even a stopped (SIGSTOP) or stuck one."""
        for actor in self._actors:
            with contextlib.suppress(Exception):
                self._ray.kill(actor, no_restart=True)
        self._actors.clear()
        if self._group is not None:
            release(self._group)
            self._group = None
        for address in self.addresses:
            _end_process(address)
        self.addresses.clear()

    # starting ------------------------------------------------------------------------------------------------------

    def _start(self, blueprint: Blueprint) -> None:
        ray, resources, n = self._ray, blueprint.spec.resources, blueprint.n_workers
        bundle: dict[str, float] = {"CPU": resources.cpus_per_worker}
        memory = resources.memory_per_worker
        if memory is None and self._link is not None:
            memory = self._link.memory_limit(resources.cpus_per_worker)
        self.memory_limit = memory
        if memory is not None:
            bundle["memory"] = memory
        within = _START_TIMEOUT_S if self._link is None else None  # a service's job waits until somebody stops it
        self._group = reserve(ray, bundle, n, within_s=within, give_up=self._give_up, on_wait=self._on_wait)
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        threads = str(resources.cpus_per_worker)
        variables = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
        actor_class = ray.remote(concurrency_groups={CONTROL: 1})(_with_control_group(ray))
        for w in range(n):
            options = {
                "num_cpus": resources.cpus_per_worker,
                "max_restarts": 0,
                "max_task_retries": 0,
                "runtime_env": {"env_vars": variables},
                "scheduling_strategy": PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=w),
            }
            if "memory" in bundle:
                options["memory"] = bundle["memory"]
            self._actors.append(actor_class.options(**options).remote(w, self._hang_timeout, self._link, self._links))
        self.addresses = list(self._plain([actor.bind.remote() for actor in self._actors], "starting"))
        if self._give_up():
            raise StoppedEarly("stopped while the workers were being started")
        self._plain([actor.admit.remote(self.addresses) for actor in self._actors], "connecting")
        room = link_room(blueprint)
        to = [{receiver: n for (sender, receiver), n in room.items() if sender == w} for w in range(n)]
        self._plain(
            [a.connect.remote(self.addresses, to[w], resources.cpus_per_worker) for w, a in enumerate(self._actors)],
            "connecting",
        )
        self._clocks = Clocks([self._asks_for_time(w) for w in range(n)])

    # collecting ----------------------------------------------------------------------------------------------------

    def _plain(self, refs: Sequence[Any], what: str) -> Sequence[Any]:
        """Return the results of calls that are not submissions."""
        try:
            return list(self._ray.get(list(refs), timeout=_START_TIMEOUT_S))
        except self._ray.exceptions.GetTimeoutError:
            raise WorkerHung(f"a worker did not finish {what} within {_START_TIMEOUT_S:g} s") from None
        except self._ray.exceptions.RayActorError as error:
            raise WorkerLost(f"a worker died while {what}: {full_here(self._ray) or _last_line(error)}") from None
        except self._ray.exceptions.RayTaskError as error:
            raise JobFailed(f"a worker failed while {what}: {_last_line(error.cause or error)}") from None
        except self._ray.exceptions.RayError as error:
            raise JobFailed(f"a worker failed while {what}: {_last_line(error)}") from None

    def _collect(self, refs: Sequence[Any], within_s: float = math.inf) -> Sequence[Sequence[Report]]:
        """Return the reports of all workers. The first failure ends the wait; the error names the worker that failed,
        died or hangs."""
        watch = _Watch(self, list(refs))
        began = time.monotonic()
        while watch.waiting:
            watch.look()
            if time.monotonic() - began > within_s:
                late = self.place(watch.refs.index(watch.waiting[0]))
                raise WorkerHung(
                    f"{late} did not finish preparing (reading the data, building stages) in {within_s:g} s"
                )
        return [watch.results[ref].reports for ref in refs]

    def place(self, worker: int) -> str:
        """Return a worker's name for errors."""
        process = ""
        if worker < len(self.addresses):
            process = f"process {self.addresses[worker].pid} on {self.addresses[worker].host}"
        return place_of(worker, self._program, process)

    def seen(self, workers: Sequence[int]) -> dict[int, Seen]:
        """Return what each of these workers is doing. Workers that do not answer within a few seconds are left out."""
        ray, refs = self._ray, {}
        for worker in workers:
            refs[self._actors[worker].seen.remote()] = worker
        ready, _ = ray.wait(list(refs), num_returns=len(refs), timeout=_PROBE_ANSWER_S) if refs else ([], [])
        found = {}
        for ref in ready:
            with contextlib.suppress(Exception):
                found[refs[ref]] = ray.get(ref)
        return found

    @property
    def program(self) -> Program:
        """The program of a full step."""
        return self._program

    @property
    def hang_timeout(self) -> float:
        """Seconds after which a worker without progress, or without an answer, counts as hanging."""
        return self._hang_timeout

    @property
    def ray(self) -> Any:
        """The Ray module."""
        return self._ray


@dataclass
class _RayTicket:
    refs: list[Any]
    collector: Callable[[Sequence[Any]], Sequence[Sequence[Report]]]

    def collect(self) -> Sequence[Sequence[Report]]:
        """See Ticket."""
        return self.collector(self.refs)


@dataclass
class _Watch:
    """Waits for one submission, and checks workers that take long."""

    workers: RayWorkers
    refs: list[Any]
    results: dict[Any, Result] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._liveness = Liveness(len(self.refs), self.workers.hang_timeout)

    @property
    def waiting(self) -> list[Any]:
        """The calls that have not returned."""
        return [ref for ref in self.refs if ref not in self.results]

    def look(self) -> None:
        """Wait up to _WATCH_EVERY_S for a result. Raises JobFailed if a worker failed, died or hangs."""
        ray = self.workers.ray
        ready, _ = ray.wait(self.waiting, num_returns=1, timeout=_WATCH_EVERY_S)
        failures: list[Failure] = []
        for ref in ready:
            try:
                result = ray.get(ref)
            except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as error:
                raise self._lost(self.refs.index(ref), error) from None
            except ray.exceptions.RayError as error:
                place = self.workers.place(self.refs.index(ref))
                raise JobFailed(f"{place}: {_last_line(getattr(error, 'cause', None) or error)}") from None
            if result.failure is not None:
                failures.append(result.failure)
            self.results[ref] = result
        if failures:
            self._raise_first_cause(failures)
        if not ready:
            self._look_after()

    def _lost(self, worker: int, error: Exception) -> WorkerLost:
        others = [w for w in range(len(self.refs)) if w != worker]
        meanwhile = [f"worker {w} was {activity_text(seen)}" for w, seen in sorted(self.workers.seen(others).items())]
        last = self._liveness.last_seen(worker)
        where = f" last seen {last};" if last is not None else ""
        return WorkerLost(
            f"{self.workers.place(worker)} died:{where} {_death(error, full_here(self.workers.ray))}"
            + (f"; meanwhile {', '.join(meanwhile)}" if meanwhile else "")
        )

    def _raise_first_cause(self, failures: list[Failure]) -> None:
        """Raise the first cause. A worker's timeout is mostly a consequence, so check first whether another worker
        died, failed or hangs."""
        ray = self.workers.ray
        if all(failure.kind == "timeout" for failure in failures) and self.waiting:
            ready, _ = ray.wait(self.waiting, num_returns=len(self.waiting), timeout=_PROBE_ANSWER_S)
            for ref in ready:
                try:
                    other = ray.get(ref)
                except ray.exceptions.RayError as error:
                    raise self._lost(self.refs.index(ref), error) from None
                self.results[ref] = other
                if other.failure is not None:
                    failures.append(other.failure)
            silent = self._silent()
            if silent and all(failure.kind == "timeout" for failure in failures):
                echo = f"{failures[0].message} (worker {failures[0].worker})"
                raise self._hung(silent[0], f"no answer; {echo}")
        raise first_cause(failures, self.workers.program)

    def _silent(self) -> list[int]:
        waiting = [self.refs.index(ref) for ref in self.waiting]
        answered = self.workers.seen(waiting)
        return [worker for worker in waiting if worker not in answered]

    def _look_after(self) -> None:
        """Check all workers, even those that have ended this submission: another worker may wait for one of them."""
        asked = time.monotonic()
        hang = self._liveness.take(asked, self.workers.seen(range(len(self.refs))))
        if hang is not None:
            raise self._hung(hang.worker, hang.why)

    def _hung(self, worker: int, why: str) -> WorkerHung:
        return WorkerHung(f"{self.workers.place(worker)} hangs: {why}")


def _with_control_group(ray: Any) -> type[WorkerActor]:
    """Return the actor class, in which a separate thread handles the calls `seen` and `now`."""

    class PipetrainWorker(WorkerActor):
        """A WorkerActor that answers `seen` and `now` while it works."""

        seen = ray.method(concurrency_group=CONTROL)(WorkerActor.seen)
        now = ray.method(concurrency_group=CONTROL)(WorkerActor.now)

    return PipetrainWorker


def _last_line(error: BaseException) -> str:
    """Return the last line of a Ray error, which names the cause; the lines above it say where Ray noticed it."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)


def _death(error: BaseException, full: str) -> str:
    """Return why an actor died, by Ray's error, in one line. `full` is the text of `full_here`."""
    if "running low on memory" in str(error):
        return "Ray ended its process because the host ran low on memory"
    if "node has died" in str(error) or "node was terminated" in str(error):
        return "its node was lost: Ray there, the host, or the network to it"
    ended = "its process ended unexpectedly"
    return (
        f"{ended}; {full}" if full else f"{ended}: killed from outside, by the kernel for lack of memory, or by a crash"
    )


def _end_process(address: WorkerAddress) -> None:
    """Kill a worker's process on this host, because Ray's own kill does not reach a stopped one, and remove its
    socket."""
    if address.host != os.uname().nodename:
        return
    shutil.rmtree(Path(address.unix.removeprefix("ipc://")).parent, ignore_errors=True)
    end_ray_process(address.pid, ACTOR_NAME)
