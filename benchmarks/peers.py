"""`python -m benchmarks.peers`: this project against torch.distributed.pipelining, and against one torch process.

Both sides train the same networks on two worker processes with one BLAS thread each, ours through Ray actors as
`pipetrain train` does. First every candidate, a schedule with a number of micro-batches, is started and measured for a
moment. Then the fastest ones of each side take turns, together with the whole network in one torch process with two
threads: a slow spell of the machine affects all of them, and all ratios are of one run.

Three comparisons: both sides with the same number of micro-batches; each side with its best number; our best against
the one process, which is what a user of this one machine would run instead. Of each side the contestant with the
smallest median step counts. Its mean stands beside the median: it has the stalls, too.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from benchmarks import CONFIGS, GPT_CONFIGS, WORKERS, AnyConfig, GptConfig
from benchmarks.ours import OurPeer, job_for
from benchmarks.torch_peer import KEEP_MEMORY, ONE_PROCESS, TorchPeer, schedules_for
from cluster.actors.ray_session import ray_session
from coordinator.job.schedule_names import TWO_STAGES_A_WORKER, fewest_micro_batches
from coordinator.texts import per_second

OURS = (("1f1b", 1), ("gpipe", 8), ("zb-h1", 1), ("zb-h1", 4), ("zb-h2", 1), ("zbv", 1))
"""Our schedules, each with a weight-gradient group, which is at most the number of micro-batches."""
OURS_ELSEWHERE = (("zb-h1", 1), ("zb-h2", 1), ("zbv", 1))
"""Those that are tried with other numbers of micro-batches than the network's own."""
OURS_GPT = (("1f1b", 1), ("zb-h1", 1), ("zb-h2", 1), ("zbv", 1), ("v-half", 1), ("dualpipev", 1))
OURS_GPT_ELSEWHERE = (("zb-h2", 1), ("zbv", 1), ("dualpipev", 1))
"""The same for GPTs. Their blocks are large enough for two stages a worker."""
TORCH = ("1F1B", "GPipe", "InterleavedZeroBubble-1", "ZBVZeroBubble", "DualPipeV")
"""Torch's schedules that won for any network, or nearly did, when `python -m benchmarks.torch_peer` measured all
nine."""
TORCH_ELSEWHERE = ("1F1B", "GPipe", "Interleaved1F1B", "DualPipeV")
MICRO_BATCHES = {64: (2, 4), 256: (2, 4), 1024: (4, 8), 2048: (4,)}
"""Other numbers of micro-batches that both sides try, by the width of an MLP, …"""
GPT_MICRO_BATCHES = {12: (2, 3, 6), 8: (2, 8), 4: (2,)}
"""… and by the batch of a GPT."""


class Wanted(NamedTuple):
    """The ratios that we want to reach: with equal micro-batches, with the best of each side, against one process.
    None: no matter."""

    equal: float | None
    best: float
    alone: float | None


WANTED = {
    64: Wanted(5.0, 5.0, 1.1),
    256: Wanted(1.8, 1.7, 1.0),
    1024: Wanted(1.3, 1.3, 0.95),
    2048: Wanted(1.35, 1.3, 0.9),
    128: Wanted(None, 1.3, None),
    384: Wanted(None, 1.1, None),
    768: Wanted(None, 1.05, None),
}
"""By width; the last three are GPTs."""
_TRIAL_S, _TURN_S = 0.5, 1.5
"""About how long a candidate's trial lasts, and a contestant's turn."""
_FINALISTS = 2
"""So many of each side stay in the run at equal micro-batches, and as many of those with other numbers."""


class Peer(Protocol):
    """A system that trains."""

    def measure(self, steps: int, warm_up: int = 1) -> list[float]:
        """Train, and return the seconds of each of `steps` steps."""


@dataclass(kw_only=True)
class Contestant:
    """One way to train the network, and its step times. `side` is `ours`, `torch` or `alone`."""

    side: str
    name: str
    micro_batches: int
    start: Callable[[], AbstractContextManager[Peer]] = field(repr=False)
    trial: float = math.inf
    """Median seconds of a step in the trial."""
    steps: int = 2
    seconds: list[float] = field(default_factory=list, repr=False)

    def try_out(self) -> None:
        """Start it, measure it for a moment, and end it."""
        with self.start() as peer:
            self.trial = statistics.median(peer.measure(2))
            if self.trial < _TRIAL_S / 2:
                self.trial = statistics.median(peer.measure(min(400, round(_TRIAL_S / self.trial))))
        self.steps = max(2, min(600, round(_TURN_S / self.trial)))

    def turn(self, peer: Peer) -> None:
        """Measure a turn."""
        self.seconds += peer.measure(self.steps, warm_up=1 if self.trial > _TURN_S / 2 else 2)

    @property
    def median(self) -> float:
        """Median seconds a step."""
        return statistics.median(self.seconds)

    @property
    def mean(self) -> float:
        """Mean seconds a step."""
        return statistics.fmean(self.seconds)


class Comparison(NamedTuple):
    """One of ours against one of theirs; `wanted` is the wanted ratio, if any."""

    what: str
    ours: Contestant
    other: Contestant
    wanted: float | None

    @property
    def ratio(self) -> float:
        """How many times as fast ours is, by the medians."""
        return self.other.median / self.ours.median

    @property
    def ratio_of_means(self) -> float:
        """The same by the means."""
        return self.other.mean / self.ours.mean


def main() -> None:
    """Run the measurements and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each finalist")
    parser.add_argument("--width", type=int, action="append", help="only the networks of this width (repeatable)")
    parser.add_argument("--python", default=sys.executable, help="a Python that has torch")
    parser.add_argument("--keep-memory", action="store_true", help="let torch's allocator keep freed memory")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    everything: tuple[AnyConfig, ...] = (*CONFIGS, *GPT_CONFIGS)
    configs = [config for config in everything if not options.width or config.width in options.width]
    lines = []
    workers = WORKERS * 2 * _FINALISTS  # of all finalists of our side
    with tempfile.TemporaryDirectory() as folder, ray_session(None, cpus=workers, memory=0) as ray:
        for config in configs:
            found = compete(contestants(ray, config, Path(folder), options), config.micro_batches, options.rounds)
            _print_all(config, found)
            lines += [line_of(config, one) for one in comparisons(found, config.micro_batches, WANTED[config.width])]
    print("\n| width, layers, batch | | ours, samples/s | the other, samples/s | ratio of medians (means) | wanted |")
    print("|---|---|---|---|---|---|")
    print("\n".join(lines))


def contestants(ray: Any, config: AnyConfig, folder: Path, options: argparse.Namespace) -> list[Contestant]:
    """Return every candidate of both sides, and the one process."""
    environment = dict(KEEP_MEMORY) if options.keep_memory else None

    def torch(variant: AnyConfig, schedule: str) -> Callable[[], AbstractContextManager[Peer]]:
        return lambda: TorchPeer(variant, schedule, options.python, environment=environment)

    def ours(variant: AnyConfig, schedule: str, group: int) -> Callable[[], AbstractContextManager[Peer]]:
        stages = WORKERS * (2 if schedule in TWO_STAGES_A_WORKER else 1)
        return lambda: OurPeer(ray, job_for(variant, folder, schedule=schedule, group=group, stages=stages))

    found = []
    for variant in _variants(config):
        m, own = variant.micro_batches, variant.micro_batches == config.micro_batches
        for schedule, group in ours_for(variant, own=own):
            name = f"{schedule}, group {group}, {m}"
            found.append(Contestant(side="ours", name=name, micro_batches=m, start=ours(variant, schedule, group)))
        for schedule in TORCH if own else TORCH_ELSEWHERE:
            if schedule in schedules_for(variant):
                start = torch(variant, schedule)
                found.append(Contestant(side="torch", name=f"{schedule}, {m}", micro_batches=m, start=start))
    found.append(Contestant(side="alone", name=ONE_PROCESS, micro_batches=1, start=torch(config, ONE_PROCESS)))
    return found


def ours_for(config: AnyConfig, *, own: bool) -> list[tuple[str, int]]:
    """Return our schedules for a network, each with its weight-gradient group. `own`: with the network's own number of
    micro-batches."""
    of_gpt = isinstance(config, GptConfig)
    some: Sequence[tuple[str, int]] = OURS_GPT if of_gpt else OURS
    if not own:
        some = OURS_GPT_ELSEWHERE if of_gpt else OURS_ELSEWHERE
    m = config.micro_batches
    return sorted({(name, min(group, m)) for name, group in some if fewest_micro_batches(name, WORKERS) <= m})


def _variants(config: AnyConfig) -> list[AnyConfig]:
    """Return the network with each number of micro-batches to try, its own first."""
    more = GPT_MICRO_BATCHES[config.batch] if isinstance(config, GptConfig) else MICRO_BATCHES[config.width]
    return [config, *(replace(config, micro_batches=m) for m in more)]


def compete(everyone: Sequence[Contestant], own: int, rounds: int) -> list[Contestant]:
    """Try every contestant out, let the finalists take turns, and return these. `own` is the network's own number of
    micro-batches."""
    for contestant in everyone:
        contestant.try_out()
        print(f"  trial  {contestant.side:<6} {contestant.name:<32} {1e3 * contestant.trial:>9.2f} ms", flush=True)
    last = list(finalists(everyone, own))
    with contextlib.ExitStack() as stack:
        peers = [(contestant, stack.enter_context(contestant.start())) for contestant in last]
        for _, peer in peers:
            peer.measure(2)
        for number in range(rounds):
            for contestant, peer in peers if number % 2 else reversed(peers):
                contestant.turn(peer)
    return last


def finalists(everyone: Sequence[Contestant], own: int) -> Iterator[Contestant]:
    """Yield the fastest of each side in the trials: at its own number of micro-batches, and at any other."""
    for side in ("ours", "torch"):
        for is_own in (True, False):
            group = [c for c in everyone if c.side == side and (c.micro_batches == own) is is_own]
            yield from sorted(group, key=lambda c: c.trial)[:_FINALISTS]
    yield from (c for c in everyone if c.side == "alone")


def comparisons(finished: Sequence[Contestant], own: int, wanted: Wanted) -> list[Comparison]:
    """Return the three comparisons: at equal micro-batches, at the best of each side, against one process."""

    def best(side: str, m: int | None = None) -> Contestant:
        return min((c for c in finished if c.side == side and m in (None, c.micro_batches)), key=lambda c: c.median)

    return [
        Comparison(f"{own} micro-batches each", best("ours", own), best("torch", own), wanted.equal),
        Comparison("the best number of each", best("ours"), best("torch"), wanted.best),
        Comparison("torch without a pipeline", best("ours"), best("alone"), wanted.alone),
    ]


def line_of(config: AnyConfig, one: Comparison) -> str:
    """Return a line of the table."""
    cells = [f"{per_second(config.batch / c.median)} ({c.name})" for c in (one.ours, one.other)]
    wanted = "" if one.wanted is None else f"≥ {one.wanted}"
    network = config if isinstance(config, GptConfig) else f"{config.width}, {config.layers}, {config.batch}"
    return f"| {network} | {one.what} | {' | '.join(cells)} | {one.ratio:.2f} ({one.ratio_of_means:.2f}) | {wanted} |"


def _print_all(config: AnyConfig, finished: Sequence[Contestant]) -> None:
    print(f"\n{config}")
    for one in sorted(finished, key=lambda c: (c.side, c.median)):
        rate, flops = per_second(config.batch / one.median), config.step_flops / one.median / 1e9
        times = f"{1e3 * one.median:>9.2f} ms (mean {1e3 * one.mean:.2f})"
        print(f"  {one.side:<6} {one.name:<32} {times:<28} {rate:>10} samples/s {flops:>7.1f} GFLOP/s", flush=True)


if __name__ == "__main__":
    main()
