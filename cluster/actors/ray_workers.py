"""Workers as Ray actors: an actor for each worker, in a placement group, with one call to each worker per submission.

[Note: no retries] Ray's own restarts and retries stay off: a call performed twice would add gradients twice. A lost
worker is replaced by `begin_replacing` and `replace`, which lets all workers go back to the same step.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cluster.actors.asking import ProgressQuestions, Sights
from cluster.actors.checkpoint_files import CheckpointFiles
from cluster.actors.clocks import Clocks, clock_name
from cluster.actors.packing import pack_orders
from cluster.actors.protocol import LinkChoice, WorkerAddress
from cluster.actors.ray_placement import on_node, release, reserve
from cluster.actors.ray_room import Placing, require_a_node, room_for_workers
from cluster.actors.ray_session import full_here
from cluster.actors.ray_watch import PROBE_ANSWER_S, RayTicket, Watch, last_line, placed_at, what_was_lost
from cluster.actors.reaching import CutOffNodes
from cluster.actors.runner_link import RunnerLink
from cluster.actors.spare import Spare
from cluster.actors.worker_class import remote_class
from cluster.actors.worker_process import ACTOR_NAME, end_process, let_drop
from cluster.checkpoints.folder import NO_STATE, StatePlaces
from coordinator.plan.blueprint import Blueprint
from coordinator.plan.link_room import link_room
from coordinator.train.failures import place_of
from coordinator.train.pace import ActionPace
from coordinator.train.workers import ClockFix, WorkerPlace
from stages.actions import Program
from stages.errors import JobFailed, StoppedEarly, WorkerHung, WorkerLost
from stages.orders import Fault, Faults, Order, Report, faults_of
from stages.progress import Seen

_START_TIMEOUT_S = 120.0
_PREPARE_TIMEOUT_S = 900.0  # enough for a large data set over a slow network
_LOOK_EVERY_S = 1.0
Ends = Sequence[float] | None
_DROP_TIMEOUT_S = 20.0  # a thread answers that does nothing else


class RayWorkers:
    """The workers of one job. `ray` is the initialised module (see `cluster.actors.ray_session`).

    `fingerprint` and `weights` are the checksums of the data and of `model.weights` when the job began, `checked` those
    of files that need not be read again (`JobData.checked`).

    `link` is not None if the service's runner makes them. The wait for room in the cluster ends if `give_up` returns
    True, and calls `on_wait` with what it waits for. Raises NotEnoughResources if the cluster is too small, JobFailed
    if a worker cannot start, StoppedEarly on `give_up`. Every wait for workers calls `require_time` now and then, which
    may raise GraceOver.
    """

    def __init__(
        self,
        ray: Any,
        blueprint: Blueprint,
        *,
        fingerprint: int,
        checked: Mapping[str, int] | None = None,
        weights: int | None = None,
        faults: Faults | None = None,
        link: RunnerLink | None = None,
        give_up: Callable[[], bool] = lambda: False,
        require_time: Callable[[], None] = lambda: None,
        on_wait: Callable[[str], None] = lambda text: None,
        links: LinkChoice = LinkChoice(),
        places_of_state: StatePlaces = NO_STATE,
    ) -> None:
        self._ray, self._link, self._give_up, self._on_wait, self._links = ray, link, give_up, on_wait, links
        self._require_time = require_time
        self._blueprint, self._program = blueprint, blueprint.program
        self._faults = {w: list(faults_of(faults, w)) for w in range(blueprint.n_workers)}
        self._checked = dict(checked or {})
        self._begins_with = blueprint.spec.document(), fingerprint, weights
        self._connection, self._gone = 0, set[int]()  # how often they were connected anew; those to be replaced
        self._hang_timeout = blueprint.spec.resources.hang_timeout
        self.cut_off, self.pace = CutOffNodes(ray), ActionPace()
        """Where nothing can be placed now; how long actions normally take."""
        self.spare = Spare(ray, self._make_spare, wanted=blueprint.spec.recovery.spare > 0)
        self._group: Any = None
        self._files: Any = None  # the actor CheckpointFiles, if there are workers on other hosts
        self._actors: list[Any] = []
        self.addresses: list[WorkerAddress] = []
        self.memory_limit: int | None = None
        """The most bytes that each worker may take, including its data; None for no limit."""
        try:
            self._start(None if link is not None else _START_TIMEOUT_S)
            self._prepare_all(places_of_state)
        except BaseException:
            self.close()
            raise

    def submit(self, orders: Sequence[Order]) -> RayTicket:
        """See Workers."""
        packed = pack_orders(orders)
        return RayTicket([actor.run.remote(packed) for actor in self._actors], self._collect)

    def memory(self) -> list[dict[str, int]]:
        """Return each worker's memory in bytes (see WorkerActor.memory)."""
        return list(self._plain([actor.memory.remote() for actor in self._actors], "reporting memory"))

    def plan_fault(self, worker: int, fault: Fault) -> int | None:
        """Let a fault strike a worker at a later point, also if it is replaced before. If the fault's step has begun
        there, plan nothing and return the step in progress. Raises JobFailed if the worker does not answer."""
        call = self._actors[worker].plan_fault.remote(fault)
        if not self._ray.wait([call], timeout=PROBE_ANSWER_S)[0]:
            raise placed_at(WorkerHung(f"{self.place(worker)} does not answer"), worker)
        (step,) = self._plain([call], "planning a fault")
        if step is None:
            self._faults[worker].append(fault)
        return None if step is None else int(step)

    def places(self) -> Sequence[WorkerPlace]:
        """See Workers."""
        return [WorkerPlace(at.worker, at.host, at.node, at.pid, at.cores) for at in self.addresses]

    def clocks(self) -> Sequence[ClockFix]:
        """See Workers."""
        return self._clocks.fixes()

    def _asks_for_time(self, worker: int) -> Callable[[], float] | None:
        if self.addresses[worker].clock == clock_name():
            return None
        return lambda: float(self._ray.get(self._actors[worker].now.remote(), timeout=PROBE_ANSWER_S))

    def close(self) -> None:
        """See Workers. Ends every worker process, even a stopped (SIGSTOP) or stuck one."""
        self._end_all()
        if self._files is not None:
            with contextlib.suppress(Exception):
                self._ray.kill(self._files, no_restart=True)
            self._files = None

    def _end_all(self) -> None:
        self.spare.end()
        for actor in self._actors:
            with contextlib.suppress(Exception):
                self._ray.kill(actor, no_restart=True)
        self._actors.clear()
        if self._group is not None:
            release(self._group)
            self._group = None
        for address in self.addresses:
            end_process(address)
        self.addresses.clear()

    # starting ------------------------------------------------------------------------------------------------------

    def _start(self, within_s: float | None) -> None:
        """Start and connect the workers. Wait `within_s` for room; None: until somebody stops the job."""
        ray, resources, n = self._ray, self._blueprint.spec.resources, self._blueprint.n_workers
        bundle: dict[str, float] = {"CPU": resources.cpus_per_worker}
        memory = resources.memory_per_worker
        if memory is None and self._link is not None:
            memory = self._link.memory_limit(resources.cpus_per_worker)
        self.memory_limit = memory
        if memory is not None:
            bundle["memory"] = memory
        self._bundle = bundle
        waits: Any = {"give_up": self._give_up, "on_wait": self._on_wait}
        self._group = reserve(ray, bundle, n, within_s=within_s, except_on=self.cut_off.now(), **waits)
        timeout = self._blueprint.spec.recovery.room_timeout
        self._placing = Placing(self._group, timeout, cut_off=self.cut_off.now, **waits)
        threads = str(resources.cpus_per_worker)
        variables = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
        self._options = {
            "num_cpus": resources.cpus_per_worker,
            "max_restarts": 0,
            "max_task_retries": 0,
            "runtime_env": {"env_vars": variables},
            **({"memory": memory} if memory is not None else {}),
        }
        self._class = remote_class(ray)
        self._actors += [self._make(w) for w in range(n)]
        self._bind()
        if self._give_up():
            raise StoppedEarly("stopped while the workers were being started")
        self._connect()

    def _make(self, worker: int) -> Any:
        """Return a new actor for a worker, in the worker's bundle."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=worker)
        actor = self._class.options(**self._options, scheduling_strategy=strategy)
        return actor.remote(worker, self._hang_timeout, self._link, self._links)

    def _make_spare(self, node: str) -> Any:
        options = {**self._options, "num_cpus": 0, "memory": None, "scheduling_strategy": on_node(node)}
        return self._class.options(**options).remote(None, self._hang_timeout, self._link, self._links)

    def _bind(self) -> None:
        self.addresses = list(self._plain([actor.bind.remote(self._connection) for actor in self._actors], "starting"))

    def _connect(self) -> None:
        self._plain([actor.admit.remote(self.addresses) for actor in self._actors], "connecting")
        room, cpus = link_room(self._blueprint), self._blueprint.spec.resources.cpus_per_worker
        calls = []
        for w, actor in enumerate(self._actors):
            to = {receiver: n for (sender, receiver), n in room.items() if sender == w}
            calls.append(actor.connect.remote(self.addresses, to, cpus))
        self._plain(calls, "connecting")
        self._clocks = Clocks([self._asks_for_time(w) for w in range(len(self._actors))])

    def _prepare_all(self, states: StatePlaces, since: Ends = None) -> None:
        self._serve_files(states.folder)
        calls = [self._prepare(w, states, began) for w, began in enumerate(self._began(since))]
        self._collect(calls, _PREPARE_TIMEOUT_S)
        self.spare.start(self.addresses)

    def _serve_files(self, folder: str | None) -> None:
        """Make the actor through which workers on other hosts write and read checkpoints, if there are any."""
        here = self._ray.get_runtime_context().get_node_id()
        if folder is None or self._files is not None or all(address.node == here for address in self.addresses):
            return
        options = {"num_cpus": 0, "max_restarts": 0, "scheduling_strategy": on_node(here)}
        self._files = self._ray.remote(CheckpointFiles).options(**options).remote(folder)

    def _prepare(self, worker: int, states: StatePlaces, recovering_since: float | None = None) -> Any:
        """Return the call that makes the worker's stages."""
        setup = self._blueprint.setup(worker, self._faults[worker])
        states = dataclasses.replace(states, files=self._files)
        return self._actors[worker].prepare.remote(setup, *self._begins_with, states, self._checked, recovering_since)

    # replacing -----------------------------------------------------------------------------------------------------

    def begin_replacing(self, worker: int | None) -> None:
        """End a worker's process and start a new one in its place (None: of no worker); let all other workers drop what
        they do. If one of them does not answer, it is replaced too."""
        if worker is not None:
            self._gone.add(worker)
        more = sorted(self._gone)
        while True:
            for gone in more:
                self._end(gone)
                self._actors[gone] = self.spare.take(gone, self.addresses[gone].node) or self._make(gone)
            survivors = {w: actor for w, actor in enumerate(self._actors) if w not in self._gone}
            more = let_drop(self._ray, survivors, min(self._hang_timeout, _DROP_TIMEOUT_S))
            if not more:
                return
            self._gone.update(more)

    def replace(self, step: int, states: StatePlaces, since: Ends) -> list[WorkerPlace]:
        """After `begin_replacing`: connect all workers anew, and let them go back to the state after update `step`.
        Return the places of the new workers.

        `states` names the checkpoint of that step; without one, they begin with the weights of the start. `since` has
        the end of each worker's last account on this process's clock; None before the first. Raises JobFailed with the
        place of a worker that failed meanwhile, which can be replaced in its turn.
        """
        self._connection += 1
        self._bind()
        self._connect()
        self._serve_files(states.folder)
        calls = []
        for w, (actor, began) in enumerate(zip(self._actors, self._began(since), strict=True)):
            if w in self._gone:
                calls.append(self._prepare(w, states, began))
            else:
                document, _, weights = self._begins_with
                calls.append(actor.go_back.remote(document, weights, step, states, began))
        self._collect(calls, _PREPARE_TIMEOUT_S)
        self.spare.start(self.addresses)
        new = [at for at in self.places() if at.worker in self._gone]
        self._gone.clear()
        return new

    def _began(self, since: Ends) -> list[float | None]:
        return [None if since is None else since[w] - clock.offset for w, clock in enumerate(self.clocks())]

    def _end(self, worker: int) -> None:
        with contextlib.suppress(Exception):
            self._ray.kill(self._actors[worker], no_restart=True)
        end_process(self.addresses[worker])

    # laying out anew ------------------------------------------------------------------------------------------------

    def room(self) -> int:
        """Return how many workers the cluster has room for, these included."""
        own = [address.node for address in self.addresses]
        return room_for_workers(self._ray, self._bundle, own, self.cut_off.now())

    def lay_out(self, blueprint: Blueprint, states: StatePlaces, within_s: float, since: Ends = None) -> None:
        """End all workers, and start those of another plan of the job, with the state that `states` names; `since` as
        for `replace`. Raises NotEnoughResources if the cluster has no room for them in time, JobFailed."""
        self._end_all()
        if blueprint is not self._blueprint:  # else what was planned is planned for the new workers too
            self._faults = {w: [] for w in range(blueprint.n_workers)}
        self._blueprint, self._program = blueprint, blueprint.program
        self._connection, self.pace = self._connection + 1, ActionPace()
        self._gone.clear()
        self._start(within_s)
        self._prepare_all(states, since)

    # collecting ----------------------------------------------------------------------------------------------------

    def _plain(self, refs: Sequence[Any], what: str) -> Sequence[Any]:
        """Return the results of calls that are not submissions."""
        exceptions, end, waiting = self._ray.exceptions, time.monotonic() + _START_TIMEOUT_S, list(refs)
        while waiting:
            self._require_time()
            left = max(0.0, end - time.monotonic())
            ready, waiting = self._ray.wait(waiting, num_returns=1, timeout=min(left, _LOOK_EVERY_S))
            if not ready:
                require_a_node(self._ray)
                if not self._placing.look():
                    end = time.monotonic() + _START_TIMEOUT_S
                    continue
            if not ready and left > _LOOK_EVERY_S:
                continue
            if not ready:
                late = refs.index(waiting[0])
                raise placed_at(WorkerHung(f"worker {late} did not finish {what} within {_START_TIMEOUT_S:g} s"), late)
            worker = refs.index(ready[0])
            try:
                self._ray.get(ready[0])
            except exceptions.RayActorError as error:
                why = full_here(self._ray) or last_line(error)
                lost = WorkerLost(f"worker {worker} died while {what}: {why}")
                lost.loss = what_was_lost(error)
                raise placed_at(lost, worker) from None
            except exceptions.RayTaskError as error:
                why = last_line(error.cause or error)
                raise placed_at(JobFailed(f"worker {worker} failed while {what}: {why}"), worker) from None
            except exceptions.RayError as error:
                raise placed_at(JobFailed(f"worker {worker} failed while {what}: {last_line(error)}"), worker) from None
        return list(self._ray.get(list(refs)))

    def _collect(self, refs: Sequence[Any], within_s: float = math.inf) -> Sequence[Sequence[Report]]:
        """Return the reports of all workers. The first failure ends the wait; the error names the worker that failed,
        died or hangs."""
        watch = Watch(self, list(refs))
        began = time.monotonic()
        while watch.waiting:
            watch.look()
            self._require_time()
            if time.monotonic() - began > within_s:
                late = self.place(watch.refs.index(watch.waiting[0]))
                raise WorkerHung(
                    f"{late} did not finish preparing (reading the data, building stages) in {within_s:g} s"
                )
        reports = [watch.results[ref].reports for ref in refs]
        for own in reports:
            self.pace.take(own)
        return reports

    def place(self, worker: int) -> str:
        """Return a worker's name for errors."""
        process = ""
        if worker < len(self.addresses):
            process = f"process {self.addresses[worker].pid} on {self.addresses[worker].host}"
        return place_of(worker, self._program, process)

    def host(self, worker: int) -> str:
        """Return the name of a worker's host, and its Ray node if several are on that host."""
        at = self.addresses[worker]
        alone = all(other.node == at.node for other in self.addresses if other.host == at.host)
        return at.host if alone else f"{at.host} (Ray node {at.node[:6]})"

    def questions(self) -> ProgressQuestions:
        """Return new questions to all workers."""
        return ProgressQuestions(self._ray, self._actors)

    def sights(self) -> Sights:
        """Return what looks at workers that do not answer."""
        return Sights(self._ray, self._actors, self.addresses, ACTOR_NAME)

    def seen(self, workers: Sequence[int]) -> dict[int, Seen]:
        """Return what each of these workers is doing. Workers that do not answer within a few seconds are left out."""
        ray, refs = self._ray, {}
        for worker in workers:
            refs[self._actors[worker].seen.remote()] = worker
        ready, _ = ray.wait(list(refs), num_returns=len(refs), timeout=PROBE_ANSWER_S) if refs else ([], [])
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
