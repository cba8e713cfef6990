"""A job's workers in two processes of their own, without Ray, on links that are slowed by a given delay.

The links are the product's. A worker stamps each array with the time at which it is sent, and the other one may not use
it before that time plus the delay; both read the same clock of the host.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.processes import Processes
from cluster.actors.channel import WorkerChannel
from cluster.data.sources import load_data
from coordinator.job.spec import JobSpec, load_job
from coordinator.plan.blas_threads import BlasThreads
from coordinator.plan.blueprint import Blueprint, make_blueprint
from coordinator.plan.link_room import link_room
from stages.actions import Kind
from stages.arrays import Array
from stages.channel import Tag
from stages.data import batch_bounds
from stages.orders import Order, StepReport, TrainStep, Update
from stages.process_memory import keep_freed_memory
from stages.worker import Worker

_TIMEOUT_S = 120.0
_ROUNDS = 4  # of which stamps are kept
_RATE = 1e-4


class Row(NamedTuple):
    """The reports of one step, by worker."""

    reports: Sequence[StepReport]


class SlowPeer:
    """A job's processes. They stay alive between measurements."""

    def __init__(self, spec: JobSpec, delay_s: float) -> None:
        data = load_data(spec)
        self.blueprint = make_blueprint(data.spec, len(data.train))
        self._folder = tempfile.TemporaryDirectory(prefix="slow-links-")
        folder = Path(self._folder.name)
        (folder / "job.yaml").write_text(data.spec.to_yaml())
        _stamps(folder, self.blueprint)[:] = 0.0
        self._processes = Processes(
            "slow links",
            [
                [sys.executable, "-m", "benchmarks.slow_links", str(folder), str(w), str(delay_s)]
                for w in range(self.blueprint.n_workers)
            ],
            {},
        )
        addresses = self._processes.answers(_TIMEOUT_S)
        for do in ("admit", "connect"):
            self._processes.ask(json.dumps({"do": do, "addresses": addresses}), _TIMEOUT_S)

    def run(self, steps: int) -> list[Row]:
        """Train `steps` steps."""
        answers = self._processes.ask(json.dumps({"do": "run", "steps": steps}), _TIMEOUT_S)
        return [Row(reports) for reports in zip(*map(_loaded, answers), strict=True)]

    def close(self) -> None:
        """End the processes."""
        self._processes.close()
        self._folder.cleanup()


class SlowChannel(WorkerChannel):
    """A worker's channel on which every array comes `delay_s` later."""

    def slow_down(self, stamps: Any, delay_s: float) -> None:
        """Use these stamps, which all processes share, and this delay."""
        self._stamps, self._delay_s = stamps, delay_s

    def send(self, worker: int, tag: Tag, array: Array) -> None:
        """See Channel."""
        self._stamps[_place(tag)] = time.perf_counter()
        super().send(worker, tag, array)

    def receive(self, tag: Tag) -> Array:
        """See Channel."""
        array = super().receive(tag)
        left = self._stamps[_place(tag)] + self._delay_s - time.perf_counter()
        if left > 0:
            time.sleep(left)
        return array


def _place(tag: Tag) -> tuple[int, int, int, int]:
    return tag.round % _ROUNDS, tag.stage, int(tag.kind is Kind.FORWARD), tag.micro_batch


def _stamps(folder: Path, blueprint: Blueprint) -> Any:
    shape = (_ROUNDS, blueprint.program.n_stages, 2, blueprint.program.n_micro_batches)
    path = folder / "stamps"
    return np.memmap(path, np.float64, "r+" if path.exists() else "w+", shape=shape)


def _loaded(text: str) -> Any:
    return pickle.loads(base64.b64decode(text))


def _dumped(value: object) -> str:
    return base64.b64encode(pickle.dumps(value)).decode()


def _serve(folder: Path, worker: int, delay_s: float) -> None:
    data = load_data(load_job(folder / "job.yaml"))
    blueprint = make_blueprint(data.spec, len(data.train))
    channel = SlowChannel(worker, node="here", host_ip="127.0.0.1", timeout_s=_TIMEOUT_S)
    channel.slow_down(_stamps(folder, blueprint), delay_s)
    keep_freed_memory()
    print(json.dumps(_dumped(channel.address)), flush=True)
    batches, done = batch_bounds(len(data.train), data.spec.training.batch_size), 0
    room = {to: n for (sender, to), n in link_room(blueprint).items() if sender == worker}
    spin = blueprint.n_workers <= len(os.sched_getaffinity(0))
    performer = Worker(blueprint.setup(worker), channel, train=data.train)
    for line in sys.stdin:
        asked, answer = json.loads(line), ""
        if asked["do"] == "run":
            orders: list[Order] = []
            for step in range(done, done + asked["steps"]):
                epoch_index, place = divmod(step, len(batches))
                orders += [TrainStep(step + 1, epoch_index, *batches[place]), Update(step + 1, _RATE)]
            done += asked["steps"]
            result = performer.run(orders)
            assert result.failure is None, result.failure
            answer = _dumped([report for report in result.reports if isinstance(report, StepReport)])
        else:
            addresses = [_loaded(one) for one in asked["addresses"]]
            if asked["do"] == "admit":
                channel.admit(addresses)
            else:
                channel.connect(addresses, room=room, spin=spin)
        print(json.dumps(answer), flush=True)
    channel.close()


if __name__ == "__main__":
    with BlasThreads(1):
        _serve(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
