"""`python -m benchmarks.links`: what a message between two workers of one host costs, by shared memory and by ZeroMQ.

Two parts, each with all kinds of links in turns. `messages`: two processes send each other an array, in turn; half of
the time there and back, in µs. `steps`: whole jobs on two Ray actors; time of a step, and how much faster it is than
over ZeroMQ. Figures are medians of all rounds, with the limit of the fastest tenth in brackets: what it takes if
nothing else runs for a moment.
"""

from __future__ import annotations

import argparse
import json
import pickle
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import CONFIGS, GPT_CONFIGS, WORKERS, AnyConfig, GptConfig
from benchmarks.ours import OurPeer, job_for
from benchmarks.processes import Processes
from cluster.actors.channel import WorkerChannel
from cluster.actors.protocol import LinkChoice
from cluster.actors.ray_session import ray_session
from stages.actions import Kind
from stages.channel import Tag

KINDS = {
    "zmq": LinkChoice(shares_memory=False),
    "memory": LinkChoice(shares_memory=True, spin=False),
    "memory, spinning": LinkChoice(shares_memory=True, spin=True),
}
SIZES = (8 * 2**10, 128 * 2**10, 2**20, 4 * 2**20)
"""Bytes of a message."""
_TURN_S = 0.2
_STEPS_S = 0.5
_TIMEOUT_S = 60.0
_MICRO_BATCHES = 3


def main() -> None:
    """Measure both parts, or one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="*", default=["messages", "steps"])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--width", type=int, action="append", help="only the networks of this width (repeatable)")
    parser.add_argument("--work-us", type=float, default=0.0, help="how long a process works before it answers")
    options = parser.parse_args()
    if options.part[0] == "worker":
        _worker(int(options.part[1]))
        return
    if "messages" in options.part:
        _messages(options.rounds, options.work_us)
    if "steps" in options.part:
        _steps(options.rounds, options.width or [64, 256, 128])


# messages --------------------------------------------------------------------------------------------------------


def _messages(rounds: int, work_us: float) -> None:
    commands = [[sys.executable, "-m", "benchmarks.links", "worker", str(rank)] for rank in range(2)]
    times: dict[tuple[str, int], list[float]] = {(kind, size): [] for kind in KINDS for size in SIZES}
    with Processes("links", commands, {}) as processes:
        addresses = processes.answers(_TIMEOUT_S)
        for command in ("admit", "connect"):
            processes.ask(json.dumps({"do": command, "addresses": addresses}), _TIMEOUT_S)
        for number in range(rounds + 1):
            for kind, size in times:
                count = max(20, min(2000, round(_TURN_S / (100e-6 + size / 2e9))))
                order = {"do": "measure", "kind": kind, "size": size, "count": count, "work_us": work_us}
                taken: list[float] = processes.ask(json.dumps(order), _TIMEOUT_S)[0]
                if number > 0:
                    times[kind, size] += taken
    print("\n| bytes | " + " | ".join(KINDS) + " |\n|---|" + "---|" * len(KINDS))
    for size in SIZES:
        found = [_median_and_tenth(times[kind, size]) for kind in KINDS]
        cells = [f"{median * 1e6:.1f} ({tenth * 1e6:.1f})" for median, tenth in found]
        print(f"| {size // 1024} KiB | " + " | ".join(cells) + " |", flush=True)


def _worker(rank: int) -> None:
    """One of two processes. A line on stdin is an order, a line on stdout its result."""
    channels = {
        kind: WorkerChannel(
            rank, node="n", host_ip="127.0.0.1", timeout_s=_TIMEOUT_S, shares_memory=choice.shares_memory
        )
        for kind, choice in KINDS.items()
    }
    print(json.dumps({kind: pickle.dumps(c.address).hex() for kind, c in channels.items()}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        result: list[float] = []
        if order["do"] == "measure":
            channel, work_s = channels[order["kind"]], order["work_us"] * 1e-6
            result = _measure(channel, rank, order["size"], order["count"], work_s)
        else:
            for kind, channel in channels.items():
                addresses = [pickle.loads(bytes.fromhex(one[kind])) for one in order["addresses"]]
                if order["do"] == "admit":
                    channel.admit(addresses)
                else:
                    room = {0: 2 * max(SIZES), 1: 2 * max(SIZES)}
                    channel.connect(addresses, room=room, spin=bool(KINDS[kind].spin))
        print(json.dumps(result), flush=True)
    for channel in channels.values():
        channel.close()


def _measure(channel: WorkerChannel, rank: int, size: int, count: int, work_s: float) -> list[float]:
    array, times = np.ones((64, size // 256), np.float32), []
    for j in range(count):
        there, back = Tag(j, 1, Kind.FORWARD, 0), Tag(j, 0, Kind.BACKWARD_INPUT, 0)
        began = time.perf_counter()
        if rank == 0:
            channel.send(1, there, array)
            channel.receive(back)
        else:
            channel.receive(there)
            _work(work_s)
            channel.send(0, back, array)
        times.append((time.perf_counter() - began - work_s) / 2)
    return times


def _work(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


# steps -----------------------------------------------------------------------------------------------------------


def _steps(rounds: int, widths: list[int]) -> None:
    everything: tuple[AnyConfig, ...] = (*CONFIGS, *GPT_CONFIGS)
    print("\n| network | " + " | ".join(KINDS) + " |\n|---|" + "---|" * len(KINDS))
    with tempfile.TemporaryDirectory() as folder, ray_session(None, cpus=WORKERS * len(KINDS), memory=0) as ray:
        for config in everything:
            if config.width in widths:
                _compare(ray, _small_steps(config), Path(folder), rounds)


def _small_steps(config: AnyConfig) -> AnyConfig:
    return replace(config, micro_batches=_MICRO_BATCHES) if isinstance(config, GptConfig) else config


def _compare(ray: object, config: AnyConfig, folder: Path, rounds: int) -> None:
    spec = job_for(config, folder, schedule="zb-h2", group=1)
    peers = {kind: OurPeer(ray, spec, choice) for kind, choice in KINDS.items()}
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    steps = dict.fromkeys(KINDS, 3)
    try:
        for number in range(rounds + 1):
            for kind, peer in peers.items():
                taken = peer.measure(steps[kind], warm_up=2)
                if number == 0:  # it only decides how many steps a turn has
                    steps[kind] = max(3, min(400, round(_STEPS_S / statistics.median(taken))))
                else:
                    times[kind] += taken
    finally:
        for peer in peers.values():
            peer.close()
    found = [_median_and_tenth(taken) for taken in times.values()]
    of_zmq = found[0]
    cells = [
        f"{median * 1e3:.2f} ms, × {of_zmq[0] / median:.2f} ({tenth * 1e3:.2f} ms, × {of_zmq[1] / tenth:.2f})"
        for median, tenth in found
    ]
    print(f"| {config}, {config.micro_batches} micro-batches | " + " | ".join(cells) + " |", flush=True)


def _median_and_tenth(times: list[float]) -> tuple[float, float]:
    return statistics.median(times), statistics.quantiles(times, n=10)[0]


if __name__ == "__main__":
    main()
