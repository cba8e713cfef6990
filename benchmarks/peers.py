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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from benchmarks import CONFIGS, GPT_CONFIGS, WORKERS, AnyConfig, GptConfig
from benchmarks.ours import OurPeer, job_for
from benchmarks.torch_peer import ONE_PROCESS, TorchPeer, schedules_for
from cluster.actors.ray_session import ray_session

OURS = (("1f1b", 1), ("gpipe", 8), ("zb-h1", 1), ("zb-h1", 4), ("zb-h2", 1))
"""Our schedules, each with a weight-gradient group."""
TORCH = ("1F1B", "GPipe", "InterleavedZeroBubble-1", "ZBVZeroBubble", "DualPipeV")
"""Torch's schedules that won for any network, or nearly did, when `python -m benchmarks.torch_peer` measured all
nine."""
GPT_MICRO_BATCHES = {12: (2, 3, 4, 6), 8: (2, 4, 8), 4: (2, 4)}
"""The numbers of micro-batches that both sides try for a GPT, by its batch."""
TARGETS = {1024: 1.25, 2048: 1.25, 256: 1.8, 64: 5.0}
GPT_TARGETS = {128: 1.3, 384: 1.1, 768: 1.05}
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
    steps: int = 2
    warm_up: int = 1
    seconds: list[float] = field(default_factory=list)

    def turn(self, *, counts: bool) -> None:
        """Measure a turn. The first turn does not count; it decides how many steps the following turns have."""
        taken = self.peer.measure(self.steps, warm_up=self.warm_up)
        if counts:
            self.seconds += taken
        else:
            median = statistics.median(taken)
            self.steps = max(2, min(400, round(_ROUND_S / median)))
            self.warm_up = 1 if median > _ROUND_S / 2 else 2

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
    everything: tuple[AnyConfig, ...] = (*CONFIGS, *GPT_CONFIGS)
    configs = [config for config in everything if not options.width or config.width in options.width]
    lines = []
    with tempfile.TemporaryDirectory() as folder, ray_session(None, cpus=WORKERS * len(OURS) * 4, memory=0) as ray:
        for config in configs:
            lines.append(_report(config, *_compete(ray, config, Path(folder), options)))
    print("\n| network | ours, samples/s | torch, samples/s | ratio | wanted | one torch process, 2 threads |")
    print("|---|---|---|---|---|---|")
    print("\n".join(lines))


def _compete(
    ray: Any, config: AnyConfig, folder: Path, options: argparse.Namespace
) -> tuple[list[Contestant], list[Contestant], Contestant]:
    environment = _keep_memory() if options.keep_memory else None
    ours, theirs = list[Contestant](), list[Contestant]()
    with contextlib.ExitStack() as stack:

        def torch_peer(variant: AnyConfig, schedule: str) -> Contestant:
            peer = stack.enter_context(TorchPeer(variant, schedule, options.python, environment=environment))
            return Contestant(f"{schedule}, {variant.micro_batches}", peer)

        for variant in _variants(config):
            for schedule, group in OURS:
                if group > variant.micro_batches:
                    continue
                spec = job_for(variant, folder, schedule=schedule, group=group)
                name = f"{schedule}, group {group}, {variant.micro_batches}"
                ours.append(Contestant(name, stack.enter_context(OurPeer(ray, spec))))
            theirs += [torch_peer(variant, name) for name in TORCH if name in schedules_for(variant)]
        alone = torch_peer(config, ONE_PROCESS)
        for number in range(options.rounds + 1):
            for contestant in (*ours, *theirs, alone):
                contestant.turn(counts=number > 0)
    return ours, theirs, alone


def _variants(config: AnyConfig) -> list[AnyConfig]:
    """Return the network with each number of micro-batches to try."""
    if not isinstance(config, GptConfig):
        return [config]
    return [replace(config, micro_batches=m) for m in GPT_MICRO_BATCHES[config.batch]]


def _keep_memory() -> dict[str, str]:
    from benchmarks.torch_peer import KEEP_MEMORY

    return dict(KEEP_MEMORY)


def _report(config: AnyConfig, ours: list[Contestant], theirs: list[Contestant], alone: Contestant) -> str:
    print(f"\n{config}")
    for side, contestants in (("ours", ours), ("torch", [*theirs, alone])):
        for contestant in sorted(contestants, key=lambda c: c.median):
            rate, flops = config.batch / contestant.median, config.step_flops / contestant.median / 1e9
            print(f"  {side:<6} {contestant.name:<30} {rate:>10,.4g} samples/s {flops:>7.1f} GFLOP/s", flush=True)
    targets = GPT_TARGETS if isinstance(config, GptConfig) else TARGETS
    best, other = min(ours, key=lambda c: c.median), min(theirs, key=lambda c: c.median)
    return (
        f"| {config} | {config.batch / best.median:,.3g} ({best.name}) "
        f"| {config.batch / other.median:,.3g} ({other.name}) "
        f"| {other.median / best.median:.2f} | ≥ {targets[config.width]} | {config.batch / alone.median:,.3g} |"
    )


if __name__ == "__main__":
    main()
