"""A process that measures how long a job's work takes on this host: `python -m cluster.run.calibrating`.

`cluster.run.calibration` starts several of them, so that all compute at the same time, as workers do. The first line on
stdin is the job; each line after it is an order, answered by a line of JSON.

[Note: fed worker] The worker that is measured is the product's own: its lane, its ledger, its checks. Its channel hands
it random arrays and drops what it sends. As between workers, arrays are copied, messages go through the kernel, and
the worker waits for a moment by looking again and again: without that, small actions are some per cent faster, because
everything stays in the caches. Rates are 0, so that weights stay as they were drawn.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import select
import socket
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cluster.actors.channel import WorkerChannel
from cluster.actors.host_processes import ignore_end_signals
from cluster.actors.packing import pack_result
from cluster.actors.process_limits import warm_up_blas
from cluster.actors.spinning import SPIN_S
from coordinator.job.spec import JobSpec, parse_job
from coordinator.plan.blas_threads import BlasThreads, blas_threads
from coordinator.plan.measured_costs import random_message
from stages.actions import Action, Kind, Lane
from stages.arrays import Array
from stages.channel import Tag
from stages.data import Dataset
from stages.init import dtype_of
from stages.ledger import (
    FORWARD,
    INPUT_GRADIENT,
    OTHER,
    SEND,
    UPDATE,
    WAIT_DRAIN,
    WAIT_STEADY,
    WAIT_WARMUP,
    WEIGHT_GRADIENT,
)
from stages.orders import Order, StepReport, TrainStep, Update, WorkerSetup
from stages.process_memory import keep_freed_memory
from stages.worker import Worker

MICRO_BATCHES = 4
"""Of a measured step."""
_STEPS = 3  # performed between two looks at the clock
_LEAST = 4  # steps that count, however long they take
_TIMEOUT_S = 60.0
_WAIT_S = 50e-6
_TOUCHED_BYTES = 2**19
_ASLEEP_S = 5 * SPIN_S  # after so long the other end of a link sleeps
_HEADER = bytes(98)
_SOCKET = getattr(socket, "SOCK_SEQPACKET", socket.SOCK_STREAM)
_WAITS = (WAIT_WARMUP, WAIT_STEADY, WAIT_DRAIN)


class FedChannel:
    """Hands a worker random arrays of the right shapes, and drops what it sends. See [Note: fed worker]. `inside_s` are
    the seconds spent in it, while sending and while receiving."""

    def __init__(self, spec: JobSpec, bounds: Sequence[int], rows: int) -> None:
        self._model, self._bounds, self._rows = spec.model_spec(), bounds, rows
        self._chance = np.random.default_rng(1)
        self._made: dict[tuple[int, Kind, int], Array] = {}
        self._ends = socket.socketpair(socket.AF_UNIX, _SOCKET)
        self._poller = select.poll()
        self._poller.register(self._ends[1], select.POLLIN)
        self.inside_s, self.messages = [0.0, 0.0], [0, 0]

    def send(self, worker: int, tag: Tag, array: Array) -> None:
        """See Channel."""
        began = time.perf_counter()
        array.copy()
        self._ends[0].send(_HEADER)
        self._ends[1].recv(len(_HEADER))
        self._count(0, began)

    def receive(self, tag: Tag) -> Array:
        """See Channel."""
        began = time.perf_counter()
        array = self._array(tag)
        while time.perf_counter() < began + _WAIT_S:
            self._poller.poll(0)
        self._ends[0].send(_HEADER)
        self._poller.poll(0)
        self._ends[1].recv(len(_HEADER))
        array = array.copy()
        self._count(1, began)
        return array

    def _count(self, what: int, began: float) -> None:
        self.inside_s[what] += time.perf_counter() - began
        self.messages[what] += 1

    def close(self) -> None:
        """Close its sockets."""
        for end in self._ends:
            end.close()

    def _array(self, tag: Tag) -> Array:
        tied = tag.kind in (Kind.BACKWARD_WEIGHT, Kind.BACKWARD)
        key = tag.stage, tag.kind, tag.micro_batch if tied else 0
        if key not in self._made:
            self._made[key] = self._tied(tag) if tied else self._message(tag)
        return self._made[key]

    def _tied(self, tag: Tag) -> Array:
        tie = next(tie for tie in self._model.network.trained_ties if tie.user.index == tag.micro_batch)
        return self._chance.normal(scale=0.02, size=tie.shape).astype(dtype_of(self._model))

    def _message(self, tag: Tag) -> Array:
        network = self._model.network
        if tag.kind is Kind.FORWARD:
            values = network.crossing(self._bounds[tag.stage])
        else:
            values = network.gradients(self._bounds[tag.stage + 1])
        array: Array = random_message(self._chance, values, network, self._rows, dtype_of(self._model))
        return array if tag.kind is Kind.FORWARD else array * array.dtype.type(1e-3)


def measured_lane(stage: int) -> Lane:
    """Return the actions of a measured step: two micro-batches under way, I before W."""
    found = [Action(stage, Kind.FORWARD, 0)]
    for j in range(MICRO_BATCHES):
        if j + 1 < MICRO_BATCHES:
            found.append(Action(stage, Kind.FORWARD, j + 1))
        found += [Action(stage, Kind.BACKWARD_INPUT, j), Action(stage, Kind.BACKWARD_WEIGHT, j)]
    return tuple(found)


def random_rows(spec: JobSpec, n_rows: int) -> Dataset:
    """Return rows that the job's network and loss can take."""
    model, chance = spec.model_spec(), np.random.default_rng(2)
    output, dtype = model.network.output, dtype_of(model)
    if model.vocabulary:
        x: Any = chance.integers(0, model.vocabulary, (n_rows, model.input.positions))
    else:
        x = chance.standard_normal((n_rows, model.input.numbers)).astype(dtype)
    if model.loss_function.takes_labels:
        size = (n_rows, output.positions) if output.positions else (n_rows,)
        return Dataset(x=x, y=chance.integers(0, output.features, size))
    return Dataset(x=x, y=chance.integers(0, 2, (n_rows, output.numbers)).astype(dtype))


class Measuring:
    """Measures parts of one job's network: operations `first` … `stop` − 1, as one stage."""

    def __init__(self, spec: JobSpec) -> None:
        self._spec = spec
        self._kept: tuple[tuple[int, int, int], Any] | None = None

    def part(self, first: int, stop: int, rows: int, group: int, seconds: float) -> dict[str, float]:
        """Return the seconds of F, I and W of a micro-batch of `rows` rows, with weight gradients of `group` at once,
        of the update, of what a worker does around sending and around receiving a message, and of everything else in a
        step with its report. Those of computing are medians of steps."""
        bounds = tuple(sorted({0, first, stop, len(self._spec.model_spec().network.ops)}))
        with contextlib.closing(FedChannel(self._spec, bounds, rows)) as channel:
            return self._measure(self._worker(first, stop, rows, group, bounds, channel), rows, seconds, channel)

    def _measure(self, worker: Worker, rows: int, seconds: float, channel: FedChannel) -> dict[str, float]:
        reports, packing = list[StepReport](), list[float]()
        until, step = time.perf_counter() + seconds, 0
        while len(reports) < _LEAST + 1 or time.perf_counter() < until:
            orders: list[Order] = []
            for _ in range(_STEPS):
                step += 1
                orders += [TrainStep(step, 0, 0, MICRO_BATCHES * rows), Update(step, 0.0)]
            result = worker.run(orders)
            if result.failure is not None:
                raise RuntimeError(result.failure.message)
            began = time.perf_counter()
            pack_result(orders, result)
            packing.append((time.perf_counter() - began) / _STEPS)
            reports += [report for report in result.reports if isinstance(report, StepReport)]
        for stage in worker.stages.values():
            stage.discard()
        accounts = [report.account for report in reports[1:]]  # the first step allocates
        rows_of = [next(iter(account.stages.values())) for account in accounts]
        found = {
            name: statistics.median(row[kind] for row in rows_of) / MICRO_BATCHES
            for name, kind in (("F", FORWARD), ("I", INPUT_GRADIENT), ("W", WEIGHT_GRADIENT))
        }
        found["update"] = statistics.median(row[UPDATE] for row in rows_of)
        found["other"] = statistics.median(account.worker[OTHER] for account in accounts) + statistics.median(packing)
        stages = [row for report in reports for row in report.account.stages.values()]
        booked = sum(row[SEND] for row in stages), sum(sum(row[kind] for kind in _WAITS) for row in stages)
        for name, what in (("send", 0), ("receive", 1)):
            around = booked[what] - channel.inside_s[what]
            found[name] = max(0.0, around / channel.messages[what]) if channel.messages[what] else 0.0
        return found

    def _worker(
        self, first: int, stop: int, rows: int, group: int, bounds: tuple[int, ...], channel: FedChannel
    ) -> Worker:
        model = self._spec.model_spec()
        stage = bounds.index(first)
        setup = WorkerSetup(
            worker=0,
            model=model,
            optimizer=self._spec.optimizer(),
            bounds=bounds,
            placement=tuple(int(s != stage) for s in range(len(bounds) - 1)),
            lanes={MICRO_BATCHES: measured_lane(stage)},
            micro_batches=MICRO_BATCHES,
            weight_grad_group=group,
        )
        stages = self._kept[1] if self._kept is not None and self._kept[0] == (first, stop, group) else None
        self._kept = None  # so that memory never holds two parts
        data = random_rows(self._spec, MICRO_BATCHES * rows)
        worker = Worker(setup, channel, train=data, stages=stages)
        for one in worker.stages.values():
            one.trim()
        self._kept = (first, stop, group), worker.stages
        return worker


class LinkEnd:
    """One end of a link between two of these processes, with the channel that workers have."""

    def __init__(self, rank: int, n_bytes: int, *, spin: bool) -> None:
        self._rank, self._room, self._spin = rank, 2 * n_bytes, spin
        self._channel = WorkerChannel(rank, node="here", host_ip="127.0.0.1", timeout_s=_TIMEOUT_S)
        self._sent = self._taken = 0

    @property
    def address(self) -> str:
        """What the other end needs to know."""
        return pickle.dumps(self._channel.address).hex()

    def admit(self, addresses: Sequence[str]) -> None:
        """Allow the other end to connect."""
        self._channel.admit([pickle.loads(bytes.fromhex(one)) for one in addresses])

    def connect(self, addresses: Sequence[str]) -> None:
        """Connect to the other end."""
        known = [pickle.loads(bytes.fromhex(one)) for one in addresses]
        self._channel.connect(known, room={1 - self._rank: self._room}, spin=self._spin)
        self._channel.seal()

    def measure(self, n_bytes: int, times: int) -> Mapping[str, float]:
        """Send arrays there and back. Return the median seconds of sending, of receiving an array that is there
        already, there and back if the other end is awake, the same if it sleeps, and of the work that both do before
        they send, without which all would stay in the caches."""
        array, other = np.ones((1, max(1, n_bytes // 4)), np.float32), np.zeros(_TOUCHED_BYTES // 4, np.float32)
        found: dict[str, list[float]] = {name: [] for name in ("send", "receive", "awake", "asleep", "work")}
        for j in range(3 * times):
            what = j % 3  # 0: the other end is awake; 1: its answer is there when it is looked for; 2: it sleeps
            if self._rank != 0:
                self._take()
                found["work"].append(_touch(other))
                self._send(array)
                continue
            if what == 2:
                _work(_ASLEEP_S)
            found["work"].append(_touch(other))
            began = time.perf_counter()
            sent = self._send(array)
            if what == 1:
                _work(n_bytes * 4e-9 + 3e-4)
                _touch(other)
            asked = time.perf_counter()
            self._take()
            now = time.perf_counter()
            if what == 0:
                found["send"].append(sent)
                found["awake"].append(now - began)
            elif what == 1:
                found["receive"].append(now - asked)
            else:
                found["asleep"].append(now - began)
        return {name: statistics.median(seconds) for name, seconds in found.items() if seconds}

    def _send(self, array: Array) -> float:
        began = time.perf_counter()
        self._channel.send(1 - self._rank, Tag(self._sent, self._rank, Kind.FORWARD, 0), array)
        self._sent += 1
        return time.perf_counter() - began

    def _take(self) -> None:
        self._channel.receive(Tag(self._taken, 1 - self._rank, Kind.FORWARD, 0))
        self._taken += 1

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


def _touch(array: Array) -> float:
    """Go through an array as an action does; return the seconds."""
    began = time.perf_counter()
    np.add(array, 1, out=array)
    return time.perf_counter() - began


def _work(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def copy_seconds(n_bytes: int) -> float:
    """Return the seconds of a copy of an array, as a worker makes it from one of its stages to the next."""
    array, times = np.ones(max(1, n_bytes // 4), np.float32), []
    for _ in range(50):
        began = time.perf_counter()
        array.copy()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    """Answer orders until stdin ends."""
    ignore_end_signals()  # Ctrl-C ends the process that asks, and so its pipes
    try:
        _answer_orders()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tells of it once more at its end


def _answer_orders() -> None:
    spec = parse_job(json.loads(sys.stdin.readline()))
    limits = BlasThreads(blas_threads(spec))
    keep_freed_memory()
    warm_up_blas(spec.precision)
    measuring = Measuring(spec)
    print(json.dumps("ready"), flush=True)
    with limits, contextlib.ExitStack() as open_ends:
        end = None
        for line in sys.stdin:
            order = json.loads(line)
            do = order.pop("do")
            answer: Any
            try:
                if do == "part":
                    answer = measuring.part(**order)
                elif do == "copy":
                    answer = copy_seconds(**order)
                elif do == "link":
                    end = LinkEnd(**order)
                    open_ends.callback(end.close)
                    answer = end.address
                else:
                    assert end is not None, "the link comes first"
                    answer = getattr(end, do)(**order)
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
