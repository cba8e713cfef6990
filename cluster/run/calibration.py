"""Measures how long a job's work takes on this host, in some seconds and without Ray.

times = calibrate(spec, n_workers=2, bounds=[blueprint.bounds])
predicted_step(blueprint, times).seconds

Workers that run at once slow each other down: they share memory and caches. So as many processes measure at the same
time as workers would compute at the same time, each with the worker's number of BLAS threads.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from cluster.actors.spinning import SPIN_S
from cluster.run.asked_processes import AskedProcesses
from cluster.run.calibrating import MICRO_BATCHES
from cluster.run.coordinator_time import coordinator_seconds
from coordinator.job.spec import JobSpec
from coordinator.plan.partition import Bounds
from coordinator.plan.predicted_step import trained_numbers
from coordinator.timing.machine_times import Curve, LinkTimes, MachineTimes, PartTimes, Seam
from stages.data import micro_batch_sizes
from stages.errors import HostFailed
from stages.network import Network

_Floats = np.ndarray[Any, np.dtype[np.float64]]
Part = tuple[int, int]
"""The first operation, and the one after the last."""
Measured = Mapping[str, float]

SECONDS = 0.06
"""Of a measurement, in each round."""
LINK_TIMES = 120
"""Messages of a size."""
_measured_by = ("-m", "cluster.run.calibrating")
_ROUNDS = 2
_ANSWER_S = 300.0
_ADVICE = "; see that this host has memory and processes to spare, or plan from counted operations"
_SMALL_BYTES = 8192


def calibrate(
    spec: JobSpec,
    n_workers: int,
    *,
    bounds: Sequence[Bounds] = (),
    rows: Sequence[int] = (),
    groups: Sequence[int] = (),
    alone: bool = True,
    seconds: float | None = None,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> MachineTimes:
    """Return the measured times of a job whose `n_workers` workers run on this host.

    Measured are the stages of each of `bounds` and, if `alone`, each operation by itself, from which any other cut is
    put together; for micro-batches of each of `rows` rows (by default the job's), and weight-gradient groups of each of
    `groups` micro-batches (by default the job's). A measurement takes `seconds` (by default SECONDS), twice.
    `on_progress` is called with the number of measurements that are done, and of all. Raises HostFailed if a process
    dies.
    """
    sizes = micro_batch_sizes(spec.training.batch_size, spec.training.micro_batches)
    rows = sorted(set(rows) or {max(sizes)})
    # a measured step has no larger group; the times of larger ones lie on the line
    groups = sorted({1, *(min(group, MICRO_BATCHES) for group in groups or [spec.pipeline.weight_grad_group])})
    network, cores = spec.model_spec().network, usable_cores()
    n_ops, threads = len(network.ops), spec.resources.cpus_per_worker
    like = {k: first_alike(network, k) for k in range(n_ops)} if alone else {}
    stages = sorted({part for one in bounds for part in pairwise(one)})
    wanted = list(dict.fromkeys([*((k, k + 1) for k in sorted(set(like.values()))), *stages]))
    at_once = max(1, min(n_workers, cores // threads))
    with _Processes(spec, max(at_once, min(2, n_workers)), threads) as processes:
        items = [(part, group, n) for part in wanted for group in groups for n in rows]
        found = _parts(processes, at_once, items, SECONDS if seconds is None else seconds, on_progress)
        parts = {part: _part_times(found, part, rows, groups) for part in wanted}
        crossings = [network.crossing_numbers(k) for one in bounds for k in one[1:-1]] or [network.crossing_numbers(1)]
        n_bytes = max(crossings) * rows[-1] * spec.model_spec().itemsize
        link = _link(processes, n_bytes, spin=n_workers * threads <= cores) if n_workers > 1 else _NO_LINK
        link = _with_the_workers_part(link, found)
        handed = Curve(((float(n_bytes), processes.order(1, do="copy", n_bytes=n_bytes)[0]),))
    by_part = {**{(k, k + 1): parts[a, a + 1] for k, a in like.items()}, **{part: parts[part] for part in stages}}
    return MachineTimes(
        source="measured",
        parts=by_part,
        seam=_seam(by_part, network, stages, rows),
        update=_update(spec, found),
        step_s=statistics.median(one["other"] for one in found.values()),
        local=link,
        handed=handed,
        coordinator_s=coordinator_seconds(spec, n_workers),
        cores=cores,
        threads=threads,
        rows=tuple(rows),
    )


_NO_LINK = LinkTimes(latency_s=0.0)


def usable_cores() -> int:
    """Return the number of cores that processes of this host may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def first_alike(network: Network, k: int) -> int:
    """Return the first operation that takes as long as operation k, because it does the same on arrays of the same
    shapes."""
    return next(other for other in range(k + 1) if _nature(network, other) == _nature(network, k))


def _nature(network: Network, k: int) -> tuple[object, ...]:
    op, last = network.ops[k], len(network.ops) - 1
    needs = network.needs_gradient
    return (
        type(op.layer), op.layer.cost(), op.layer.shape_in, op.layer.shape_out, op.trained, k == 0, k == last,
        tuple((p.name, p.shape, p.tied_to is None) for p in op.layer.parameters),
        [(network.shapes[v], needs[v], v in op.inputs) for v in network.crossing(k)],
        [(network.shapes[v], needs[v]) for v in network.crossing(k + 1)],
    )  # fmt: skip


Found = dict[tuple[Part, int, int], Measured]
"""By part, group and rows."""


def _parts(
    processes: _Processes,
    at_once: int,
    items: Sequence[tuple[Part, int, int]],
    seconds: float,
    on_progress: Callable[[int, int], None],
) -> Found:
    """Measure every item in turn, more than once, so that a slow moment of the host meets all of them."""
    several: dict[tuple[Part, int, int], list[Measured]] = {item: [] for item in items}
    for turn in range(_ROUNDS):
        for place, ((first, stop), group, rows) in enumerate(items):
            order = {"do": "part", "first": first, "stop": stop, "rows": rows, "group": group, "seconds": seconds}
            several[items[place]] += processes.order(at_once, **order)
            on_progress(turn * len(items) + place + 1, _ROUNDS * len(items))
    return {
        item: {name: statistics.median(one[name] for one in measured) for name in measured[0]}
        for item, measured in several.items()
    }


def _part_times(found: Found, part: Part, rows: Sequence[int], groups: Sequence[int]) -> PartTimes:
    def curve(name: str) -> Curve:
        return Curve(tuple((float(n), found[part, 1, n][name]) for n in rows))

    several = [group for group in groups if group > 1]
    if not several:
        return PartTimes(curve("F"), curve("I"), curve("W"), curve("W"))
    joined = {float(n * g): found[part, g, n]["W"] * g for g in several for n in rows}
    joined[float(rows[0])] = found[part, 1, rows[0]]["W"]  # a group of one: the line has a fixed part
    return PartTimes(curve("F"), curve("I"), curve("W"), Curve(tuple(sorted(joined.items()))))


def _seam(parts: Mapping[Part, PartTimes], network: Network, stages: Iterable[Part], rows: Sequence[int]) -> Seam:
    """Return what single operations take longer, together, than the stage that they make up; the best fit over all
    measured stages."""
    whole = [(first, stop) for first, stop in stages if stop - first > 1 and (first, first + 1) in parts]
    if not whole:
        return Seam()
    inner = np.array([stop - first - 1 for first, stop in whole for _ in rows], dtype=np.float64)
    carried = np.array(
        [n * sum(map(network.crossing_numbers, range(first + 1, stop))) for first, stop in whole for n in rows],
        dtype=np.float64,
    )
    fits = []
    for kind in range(3):
        alone = [sum(parts[k, k + 1][kind](n) for k in range(*part)) for part in whole for n in rows]
        excess = np.array(alone) - [parts[part][kind](n) for part in whole for n in rows]
        fits.append(_fit(inner, carried if kind < 2 else np.zeros_like(carried), excess))
    (f, f_each), (i, i_each), (w, _) = fits
    return Seam(f, i, w, f_each, i_each)


def _fit(inner: _Floats, carried: _Floats, excess: _Floats) -> tuple[float, float]:
    """Return the seconds of a seam, and of each number over it; both at least 0. Numbers count only if seams differ in
    them."""
    if np.ptp(carried / inner) > 0:
        (fixed, each), *_ = np.linalg.lstsq(np.column_stack([inner, carried]), excess, rcond=None)
        if fixed >= 0 and each >= 0:
            return float(fixed), float(each)
    return max(0.0, float(np.median(excess / inner))), 0.0


def _update(spec: JobSpec, found: Found) -> Curve:
    """Return the seconds of an update by its numbers: the straight line that fits the measured ones best."""
    model = spec.model_spec()
    numbers = np.array([trained_numbers(model, *part) for part, _, _ in found], dtype=np.float64)
    seconds = np.array([one["update"] for one in found.values()])
    if len(set(numbers.tolist())) < 2:
        return Curve(((float(numbers[0]), float(np.median(seconds))),))
    weights = 1 / np.maximum(seconds, 1e-7)
    columns = np.column_stack([np.ones_like(numbers), numbers]) * weights[:, None]
    (fixed, each), *_ = np.linalg.lstsq(columns, seconds * weights, rcond=None)
    return Curve.line(max(0.0, float(fixed)), max(0.0, float(each)))


def _link(processes: _Processes, n_bytes: int, *, spin: bool) -> LinkTimes:
    """Return the times of a link between two processes of this host, for two sizes of arrays."""
    largest = max(n_bytes, 2 * _SMALL_BYTES)
    addresses = processes.orders([{"do": "link", "rank": rank, "n_bytes": largest, "spin": spin} for rank in (0, 1)])
    for do in ("admit", "connect"):
        processes.order(2, do=do, addresses=addresses)
    taken = {}
    for size in (_SMALL_BYTES, largest):
        here, there = processes.order(2, do="measure", n_bytes=size, times=LINK_TIMES)
        one_way = max(0.0, here["awake"] - there["work"]) / 2
        wake = max(0.0, here["asleep"] - here["awake"])
        taken[size] = {"send": here["send"], "receive": here["receive"], "one_way": one_way, "wake": wake}
    curves = {
        name: Curve(tuple((float(size), one[name]) for size, one in taken.items())) for name in ("send", "receive")
    }
    small, large = ({**taken[size]} for size in (_SMALL_BYTES, largest))
    rest = [max(0.0, one["one_way"] - one["send"] - one["receive"]) for one in (small, large)]
    more = (rest[1] - rest[0]) / (largest - _SMALL_BYTES)
    speed = 1 / more if more > 0 else None
    return LinkTimes(
        latency_s=rest[0],
        bytes_per_s=speed,
        send=curves["send"],
        receive=curves["receive"],
        spin_s=SPIN_S if spin else math.inf,  # who never spins is asleep in every message that was measured
        wake_s=small["wake"] if spin else 0.0,
        measured=True,
    )


def _with_the_workers_part(link: LinkTimes, found: Found) -> LinkTimes:
    """Return the times with what a worker does around a message."""
    around = {name: statistics.median(one[name] for one in found.values()) for name in ("send", "receive")}
    send, receive = (
        Curve(tuple((n_bytes, seconds + around[name]) for n_bytes, seconds in curve.points))
        for name, curve in (("send", link.send), ("receive", link.receive))
    )
    return replace(link, send=send, receive=receive)


class _Processes(AskedProcesses):
    """The measuring processes of a job: each answers an order."""

    def __init__(self, spec: JobSpec, count: int, threads: int) -> None:
        variables = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        super().__init__("measuring on this host", [[sys.executable, *_measured_by]] * count, variables, _ADVICE)
        try:
            self.orders([spec.document()] * count)
        except BaseException:
            self.close()
            raise

    def order(self, count: int, **order: Any) -> list[Any]:
        """Give the same order to the first `count` processes; return their answers. Raises HostFailed."""
        return self.orders([order] * count)

    def orders(self, orders: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Give each process its order; return their answers. Raises HostFailed."""
        answers = self.ask_each([json.dumps(order) for order in orders], _ANSWER_S)
        for answer in answers:
            if isinstance(answer, dict) and "error" in answer:
                raise HostFailed(f"measuring on this host failed: {answer['error']}{_ADVICE}")
        return answers
