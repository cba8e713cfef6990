"""`python -m benchmarks.peers`: this project against torch.distributed.pipelining, interleaved in one run.

Both sides train the same networks on two worker processes with one BLAS thread each, ours through Ray actors as
`pipetrain train` does. All contestants take turns, so that a slow spell of the machine affects all of them. The
ratio compares the median of the best schedule on each side.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from benchmarks import CONFIGS, WORKERS, Config
from benchmarks.ours import OurPeer, job_for
from benchmarks.torch_peer import TorchPeer, schedules_for
from cluster.actors.ray_session import ray_session

OURS = (("1f1b", 1), ("gpipe", 8), ("zb-h1", 1), ("zb-h1", 4))
"""Our schedules, each with a weight-gradient group."""
TORCH = ("1F1B", "GPipe", "InterleavedZeroBubble-1", "ZBVZeroBubble", "DualPipeV")
"""Torch's schedules that won for any network, or nearly did, when `python -m benchmarks.torch_peer` measured all
nine."""
TARGETS = {1024: 1.25, 2048: 1.25, 256: 1.8, 64: 5.0}
_ROUND_S = 1.5  # a contestant's turn is about this long


class Peer(Protocol):
    """A system that trains."""

    def measure(self, steps: int, warm_up: int = 1) -> list[float]:
        """Train, and return the seconds of each of `steps` steps."""


@dataclass
class Contestant:
    """One side's schedule, and its step times so far."""

    name: str
    peer: Peer
    steps: int = 3
    seconds: list[float] = field(default_factory=list)

    def turn(self, *, counts: bool) -> None:
        """Measure a turn. The first turn does not count; it decides how many steps the following turns have."""
        taken = self.peer.measure(self.steps, warm_up=2)
        if counts:
            self.seconds += taken
        else:
            self.steps = max(3, min(400, round(_ROUND_S / statistics.median(taken))))

    @property
    def median(self) -> float:
        """Median seconds a step."""
        return statistics.median(self.seconds)


def main() -> None:
    """Run the measurements and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, action="append", help="only the networks of this width (repeatable)")
    parser.add_argument("--python", default=sys.executable, help="a Python that has torch")
    parser.add_argument("--keep-memory", action="store_true", help="let torch's allocator keep freed memory")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    configs = [config for config in CONFIGS if not options.width or config.width in options.width]
    lines = []
    with tempfile.TemporaryDirectory() as folder, ray_session(None, cpus=WORKERS * len(OURS), memory=0) as ray:
        for config in configs:
            ours, theirs = _compete(ray, config, Path(folder), options)
            lines.append(_report(config, ours, theirs))
    print("\n| width, layers, batch, micro-batches | ours, samples/s | torch, samples/s | ratio | wanted |")
    print("|---|---|---|---|---|")
    print("\n".join(lines))


def _compete(
    ray: Any, config: Config, folder: Path, options: argparse.Namespace
) -> tuple[list[Contestant], list[Contestant]]:
    environment = _keep_memory() if options.keep_memory else None
    with contextlib.ExitStack() as stack:
        ours = [
            Contestant(
                f"{schedule}, group {group}",
                stack.enter_context(OurPeer(ray, job_for(config, folder, schedule=schedule, group=group))),
            )
            for schedule, group in OURS
        ]
        theirs = [
            Contestant(name, stack.enter_context(TorchPeer(config, name, options.python, environment=environment)))
            for name in TORCH
            if name in schedules_for(config)
        ]
        for number in range(options.rounds + 1):
            for contestant in (*ours, *theirs):
                contestant.turn(counts=number > 0)
    return ours, theirs


def _keep_memory() -> dict[str, str]:
    from benchmarks.torch_peer import KEEP_MEMORY

    return dict(KEEP_MEMORY)


def _report(config: Config, ours: list[Contestant], theirs: list[Contestant]) -> str:
    print(f"\n{config}")
    for side, contestants in (("ours", ours), ("torch", theirs)):
        for contestant in sorted(contestants, key=lambda c: c.median):
            rate, flops = config.batch / contestant.median, config.step_flops / contestant.median / 1e9
            print(f"  {side:<6} {contestant.name:<24} {rate:>10,.0f} samples/s {flops:>7.1f} GFLOP/s", flush=True)
    best, other = min(ours, key=lambda c: c.median), min(theirs, key=lambda c: c.median)
    return (
        f"| {config} | {config.batch / best.median:,.0f} ({best.name}) "
        f"| {config.batch / other.median:,.0f} ({other.name}) "
        f"| {other.median / best.median:.2f} | ≥ {TARGETS[config.width]} |"
    )


if __name__ == "__main__":
    main()
