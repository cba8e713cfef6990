"""The predicted time of a job's step: a blueprint's program on the model of time, for given times of the machine.

step = predicted_step(blueprint, estimated_times(spec, cores=2))
step.seconds, step.bubble.total
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from coordinator.job.spec import JobSpec
from coordinator.plan.link_room import Link, link_room
from coordinator.plan.partition import action_costs
from coordinator.plan.resolved_job import Blueprint
from coordinator.program.clock import Waking
from coordinator.program.link_rooms import LinkRooms
from coordinator.program.shared_cores import SharedCores
from coordinator.program.table import KINDS, ActionTable, Times, table_of
from coordinator.program.weight_groups import WeightGroups
from coordinator.timing.machine_times import Curve, LinkTimes, MachineTimes, PartTimes, Seam
from coordinator.timing.prediction import as_performed
from coordinator.timing.step_time import PredictedStep, StepCosts, timed_step
from stages.actions import Kind
from stages.network import Network
from stages.spec import ModelSpec

OPERATIONS_A_SECOND = 5e10
"""Assumed for one core if nothing was measured."""
_ACTION_S, _LINK = 4e-5, LinkTimes(latency_s=3e-5, send=Curve.line(2e-5, 2e-10), receive=Curve.line(2e-5, 2e-10))


def estimated_times(spec: JobSpec, *, cores: int) -> MachineTimes:
    """Return times that nothing was measured for: counted operations at an assumed speed, and what an action and a
    message cost on a usual machine. They rank plans; they are no promise."""
    model, threads = spec.model_spec(), spec.resources.cpus_per_worker
    speed = OPERATIONS_A_SECOND * threads
    parts = {}
    for k, cost in enumerate(action_costs(model)):
        f, i, w = (Curve.line(_ACTION_S, each / speed) for each in cost)
        parts[k, k + 1] = PartTimes(f, i, w, w)
    return MachineTimes(
        source="estimated",
        parts=parts,
        seam=Seam(_ACTION_S, _ACTION_S, _ACTION_S),
        update=Curve.line(_ACTION_S, 1e-9),
        step_s=_ACTION_S,
        local=_LINK,
        cores=cores,
        threads=threads,
    )


def counted_times(spec: JobSpec) -> MachineTimes:
    """Return times in which only counted operations take time, in operations instead of seconds, on workers with cores
    of their own: nothing but shares follows from them."""
    parts = {}
    for k, cost in enumerate(action_costs(spec.model_spec())):
        f, i, w = (Curve.line(0.0, each) for each in cost)
        parts[k, k + 1] = PartTimes(f, i, w, w)
    return MachineTimes(
        source="estimated",
        parts=parts,
        local=LinkTimes(latency_s=0.0),
        bounded_links=False,
        cores=sys.maxsize,
        round_trip_s=0.0,
    )


def predicted_step(blueprint: Blueprint, times: MachineTimes) -> PredictedStep:
    """Return the prediction for a full batch."""
    table = performed_table(blueprint)
    return timed_step(table, step_costs(blueprint, table, times))


def computing_by_plan(blueprint: Blueprint) -> tuple[float, ...]:
    """Return the estimated seconds for which each worker computes actions and its update in a full step, on cores of
    its own; nothing if an update is over a quarter of a worker's time. How long a number takes there beside one of a
    product differs by a factor of four between machines and optimizers."""
    table = performed_table(blueprint)
    costs = step_costs(blueprint, table, estimated_times(blueprint.spec, cores=sys.maxsize))
    compute = costs.compute.reshape(-1)
    actions = [float(compute[lane].sum()) for lane in table.lanes]
    if any(update > done / 3 for done, update in zip(actions, costs.update, strict=True)):
        return ()
    return tuple(done + update for done, update in zip(actions, costs.update, strict=True))


def performed_table(blueprint: Blueprint) -> ActionTable:
    """Return the program of a full batch as workers perform it."""
    return table_of(as_performed(blueprint.program, blueprint.first_trained, together=blueprint.recompute))


def trained_numbers(model: ModelSpec, first: int, last: int) -> int:
    """Return how many numbers an update changes in these operations."""
    ops = model.network.ops[first:last]
    return sum(spec.numbers for op in ops if op.trained for _, spec in op.parameters if spec.tied_to is None)


def step_costs(blueprint: Blueprint, table: ActionTable, times: MachineTimes) -> StepCosts:
    """Return the costs of a plan's `performed_table`."""
    spec, bounds, placement = blueprint.spec, blueprint.bounds, table.placement
    model, n, item = spec.model_spec(), table.n_stages, spec.model_spec().itemsize
    network, rows = model.network, blueprint.micro_batch_rows
    shape = n, 4, table.n_micro_batches
    send, receive, late, n_bytes = np.zeros(shape), np.zeros(shape), np.zeros(max(0, n - 1)), np.zeros(shape)
    amount = np.array(rows, dtype=np.float64)
    first_trained = blueprint.first_trained
    for s in range(n - 1):
        link = _link(times, placement[s], placement[s + 1])
        there = amount * network.crossing_numbers(bounds[s + 1]) * item
        send[s, _F], receive[s + 1, _F] = _each(link.send, there), _each(link.receive, there)
        n_bytes[s, _F] = there
        late[s] = link.on_its_way(float(there.max()))
        if s >= first_trained:
            back = amount * network.gradient_numbers(bounds[s + 1]) * item
            for kind in (_I, _B):
                n_bytes[s + 1, kind] = back
                send[s + 1, kind], receive[s, kind] = _each(link.send, back), _each(link.receive, back)
    n_workers = table.n_workers
    numbers = [0] * n_workers
    for s, worker in enumerate(placement):
        numbers[worker] += trained_numbers(model, bounds[s], bounds[s + 1])
    hosts = tuple(map(times.host, range(n_workers)))
    return StepCosts(
        compute=_compute(blueprint, table, times, network),
        send=send,
        receive=receive,
        late=late,
        update=tuple(times.update(count) for count in numbers),
        other=_other(times, hosts),
        shared=SharedCores(
            host_of=hosts, cores=(times.cores,) * (max(hosts) + 1), threads=times.threads, turn=times.turn_s
        ),
        barrier=None if spec.training.clip_norm is None else times.round_trip_s,
        first_trained=first_trained,
        rooms=LinkRooms(n_bytes=n_bytes, room=_rooms(blueprint, hosts)) if times.bounded_links else None,
        waking=Waking(times.local.spin_s, times.local.wake_s),
    )


_F, _I, _W, _B = (
    KINDS.index(kind) for kind in (Kind.FORWARD, Kind.BACKWARD_INPUT, Kind.BACKWARD_WEIGHT, Kind.BACKWARD)
)


def _other(times: MachineTimes, hosts: Sequence[int]) -> tuple[float, ...]:
    """Return each worker's time between two steps. The coordinator is on the first host; if its workers need all cores,
    they wait for it in turns."""
    full = hosts.count(0) * times.threads >= times.cores
    lost = times.coordinator_s / times.cores if full else 0.0
    return tuple(times.step_s + (lost if host == 0 else 0.0) for host in hosts)


def _rooms(blueprint: Blueprint, hosts: Sequence[int]) -> dict[Link, float]:
    """Return the room of the links between workers of one host."""
    return {link: float(n) for link, n in link_room(blueprint).items() if hosts[link[0]] == hosts[link[1]]}


def _each(curve: Curve, amounts: Times) -> Times:
    return np.array([curve(float(amount)) for amount in amounts])


def _link(times: MachineTimes, a: int, b: int) -> LinkTimes:
    """Return the link between two workers, or from a worker's stage to its next one."""
    if a == b:
        return LinkTimes(latency_s=0.0, send=times.handed)
    if times.host(a) == times.host(b):
        return times.local
    return times.between or times.local


def _compute(blueprint: Blueprint, table: ActionTable, times: MachineTimes, network: Network) -> Times:
    """Return the seconds of F, I, W and B of each stage and micro-batch, with weight-gradient groups and recomputed
    stages as workers perform them."""
    rows, bounds, m = blueprint.micro_batch_rows, blueprint.bounds, table.n_micro_batches
    crossing = [network.crossing_numbers(k) for k in range(len(network.ops))]
    found = np.zeros((table.n_stages, 4, m))
    amounts = np.array(rows, dtype=np.float64)
    parts = [times.part(a, b, crossing) for a, b in pairwise(bounds)]
    for s, part in enumerate(parts):
        found[s, _F], found[s, _I] = _each(part.forward, amounts), _each(part.input_gradient, amounts)
        if s in blueprint.recompute:
            found[s, _I] += found[s, _F]
    for lane in table.lanes:
        groups: dict[int, WeightGroups] = {}
        for code in lane.tolist():
            s, kind, j = code // (4 * m), code // m % 4, code % m
            if kind not in (_W, _B):
                continue
            own = groups.setdefault(s, WeightGroups(m, blueprint.spec.pipeline.weight_grad_group))
            found[s, kind, j] = _products(parts[s], rows, own.mark(j), blueprint.spec.pipeline.weight_grad_group)
            if kind == _B:
                found[s, kind, j] += found[s, _I, j]
    return found


def _products(part: PartTimes, rows: Sequence[int], due: range, group: int) -> float:
    """Return the seconds of the products that a W computes."""
    if group == 1:
        return sum(part.weight_gradient(rows[j]) for j in due)
    seconds, first = 0.0, due.start
    while first < due.stop:
        members = range(first, min(first + group, due.stop))
        curve = part.joined if len(members) > 1 else part.weight_gradient
        seconds += curve(math.fsum(rows[j] for j in members))
        first = members.stop
    return seconds
