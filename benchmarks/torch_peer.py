"""The peer: the same networks trained by torch.distributed.pipelining, in two processes over gloo on loopback.

    python -m benchmarks.torch_peer [--python PYTHON] [--steps N] [--rounds N] [--width W] [--keep-memory]

prints every schedule of torch that runs, on every network. benchmarks.peers compares with `TorchPeer`, whose processes
stay alive between measurements, blocked on their standard input, so that two systems can take turns.

Torch gets these advantages: all its schedules take part, the zero-bubble and interleaved ones also with other numbers
of stages a worker; the mean over micro-batches is taken in the loss, which costs less than torch's own scaling of all
gradients; outputs are neither kept nor merged, and no loss is read; gradients are dropped, not zeroed; SGD is fused; a
step may begin on one worker while the other still ends the step before.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

from benchmarks import CONFIGS, GPT_CONFIGS, MOMENTUM, WORKERS, AnyConfig, Config, GptConfig
from benchmarks.processes import Processes

START_TIMEOUT_S = 120.0
STEP_TIMEOUT_S = 30.0

KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(2**32), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
"""An environment in which glibc keeps freed memory: torch allocates and frees its tensors again and again, and page
faults then take a good part of its time. It is not the default that users have."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A schedule class of torch, and the stages that a worker holds with it: every p-th stage, or two stages as a V."""

    schedule: str
    stages_per_worker: int = 1
    v_shaped: bool = False

    def stages_of(self, rank: int) -> list[int]:
        """Return the stages that worker `rank` holds, in order."""
        if self.v_shaped:
            return [rank, 2 * WORKERS - 1 - rank]
        return [rank + WORKERS * turn for turn in range(self.stages_per_worker)]

    def runs(self, config: AnyConfig) -> bool:
        """Whether torch accepts `config` for this schedule, in micro-batches of one size."""
        stages = WORKERS * self.stages_per_worker
        micro_batches = config.micro_batches
        if config.batch % micro_batches or stages > config.layers:
            return False
        if self.schedule.startswith("Interleaved"):
            return micro_batches % max(1, micro_batches // WORKERS) == 0
        if self.schedule in ("1F1B", "DualPipeV"):
            return micro_batches >= stages
        return True


SCHEDULES: Mapping[str, Layout] = {
    "GPipe": Layout("GPipe"),
    "1F1B": Layout("1F1B"),
    "LoopedBFS": Layout("LoopedBFS", 2),
    "Interleaved1F1B": Layout("Interleaved1F1B", 2),
    "Interleaved1F1B-4": Layout("Interleaved1F1B", 4),
    "InterleavedZeroBubble": Layout("InterleavedZeroBubble", 2),
    "InterleavedZeroBubble-1": Layout("InterleavedZeroBubble", 1),
    "ZBVZeroBubble": Layout("ZBVZeroBubble", 2, v_shaped=True),
    "DualPipeV": Layout("DualPipeV", 2, v_shaped=True),
}
"""Torch's schedules by torch's names; "-4" and "-1" are the same class with 4 stages and 1 stage a worker."""


def schedules_for(config: AnyConfig) -> list[str]:
    """Return the names of all schedules that torch can run on `config`."""
    return [name for name, layout in SCHEDULES.items() if layout.runs(config)]


ONE_PROCESS = "one process, 2 threads"
"""Instead of a schedule: the whole network in one process without a pipeline, with a thread for each CPU."""


class TorchPeer:
    """Two torch processes that train one network with one schedule, a few steps for each request.

    with TorchPeer(CONFIGS[0], "1F1B", sys.executable) as peer:
        seconds = peer.measure(10)
    """

    def __init__(
        self,
        config: AnyConfig,
        schedule: str,
        python: str,
        *,
        momentum: float = MOMENTUM,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        if schedule != ONE_PROCESS and not SCHEDULES[schedule].runs(config):
            raise ValueError(f"torch cannot run {schedule} on {config}")
        job = json.dumps({"config": asdict(config), "schedule": schedule, "momentum": momentum})
        loopback = {"GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo"}
        with ExitStack() as undo:
            folder = undo.enter_context(tempfile.TemporaryDirectory(prefix="torch-peer-"))
            command = [python, "-m", "benchmarks.torch_peer", "--job", job, "--rendezvous", f"{folder}/rendezvous"]
            ranks = range(1 if schedule == ONE_PROCESS else WORKERS)
            commands = [[*command, "--rank", str(rank)] for rank in ranks]
            title = f"torch {schedule} on {config}"
            self._processes = undo.enter_context(Processes(title, commands, {**loopback, **(environment or {})}))
            self._processes.answers(START_TIMEOUT_S)
            self._resources = undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def measure(self, steps: int, warm_up: int = 1) -> list[float]:
        """Run `warm_up` steps (one or more) after a barrier, then `steps` more. Return the seconds of each of the
        latter.

        A step lasts from the time when both workers had ended the step before to the time when both have ended this
        one, so the values add up to the whole time.
        """
        timeout_s = START_TIMEOUT_S + STEP_TIMEOUT_S * (warm_up + steps)
        ends_by_rank = self._processes.ask(f"{warm_up} {steps}", timeout_s)
        ends = [max(ends_at) for ends_at in zip(*ends_by_rank, strict=True)]
        return [end - before for before, end in pairwise(ends)]

    def close(self) -> None:
        """End both processes."""
        self._resources.close()


def _config(values: Mapping[str, int]) -> AnyConfig:
    return GptConfig(**values) if "heads" in values else Config(**values)


def serve(job: Mapping[str, Any], rank: int, rendezvous: str) -> None:
    """Run as worker `rank`: for each line "warm_up steps" on stdin, run the steps and print when they ended."""
    import torch
    import torch.distributed as dist

    config, alone = _config(job["config"]), job["schedule"] == ONE_PROCESS
    torch.set_num_threads(WORKERS if alone else 1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{rendezvous}",
        rank=rank,
        world_size=1 if alone else WORKERS,
        timeout=timedelta(seconds=START_TIMEOUT_S),
    )
    if alone:
        step = _step_of_whole_network(config, job["momentum"])
    else:
        step = build_step(config, SCHEDULES[job["schedule"]], rank, job["momentum"])
    for _ in range(2):
        step()
    print("[]", flush=True)
    for line in sys.stdin:
        warm_up, steps = map(int, line.split())
        dist.barrier()
        ends = []
        for _ in range(warm_up + steps):
            step()
            ends.append(time.perf_counter())  # of the whole machine: comparable between the processes
        print(json.dumps(ends[warm_up - 1 :]), flush=True)
    dist.destroy_process_group()


def _step_of_whole_network(config: AnyConfig, momentum: float) -> Callable[[], None]:
    from benchmarks import torch_networks

    return torch_networks.whole_network_step(config, momentum)


def build_step(config: AnyConfig, layout: Layout, rank: int, momentum: float) -> Callable[[], None]:
    """Return a function without arguments that runs one training step of worker `rank`."""
    import torch
    from torch.distributed.pipelining import PipelineStage, schedules

    from benchmarks import torch_networks

    stage_count = WORKERS * layout.stages_per_worker
    mine = layout.stages_of(rank)
    stages = []
    for index in mine:
        modules = torch_networks.stage_modules(config, index, stage_count)
        stages.append(PipelineStage(torch.nn.Sequential(*modules), index, stage_count, torch.device("cpu")))
    loss = torch_networks.loss_function(config)

    def mean_loss(output: Any, target: Any) -> Any:
        return loss(output, target) / config.micro_batches

    schedule_class = schedules.get_schedule_class(layout.schedule)
    single = issubclass(schedule_class, schedules.PipelineScheduleSingle)
    schedule = schedule_class(
        stages[0] if single else stages, config.micro_batches, loss_fn=mean_loss, scale_grads=False
    )
    parameters = [parameter for stage in stages for parameter in stage.submod.parameters()]
    optimizer = torch_networks.optimizer(config, parameters, momentum)
    x, y = torch_networks.batch(config)
    inputs = (x,) if 0 in mine else ()
    target = {"target": y} if stage_count - 1 in mine else {}

    def step() -> None:
        schedule.step(*inputs, return_outputs=False, **target)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def print_table(
    configs: Iterable[AnyConfig], python: str, steps: int, rounds: int, environment: Mapping[str, str]
) -> None:
    """Measure every schedule on each network, the schedules taking turns, and print the best round's median."""
    print(f"{'width, layers, batch, micro-batches':36}{'schedule':26}{'samples/s':>10}{'GFLOP/s':>9}  medians, ms")
    for config in configs:
        with ExitStack() as alive:
            peers = {
                name: alive.enter_context(TorchPeer(config, name, python, environment=environment))
                for name in schedules_for(config)
            }
            medians: dict[str, list[float]] = {name: [] for name in peers}
            for _ in range(rounds):
                for name, peer in peers.items():
                    medians[name].append(statistics.median(peer.measure(steps)))
        for name, seconds in sorted(medians.items(), key=lambda item: min(item[1])):
            best_s = min(seconds)
            rates = f"{config.batch / best_s:10.0f}{config.step_flops / best_s / 1e9:9.1f}"
            print(f"{config!s:36}{name:26}{rates}  " + " ".join(f"{value * 1e3:.1f}" for value in seconds), flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command, and the worker processes' own start."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.torch_peer", description="Measure torch's schedules.")
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has torch (default: this one)")
    parser.add_argument("--steps", type=int, default=10, help="steps of one measurement")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each schedule")
    parser.add_argument("--width", type=int, action="append", help="only the networks of this width (repeatable)")
    parser.add_argument("--keep-memory", action="store_true", help="let glibc keep freed memory (see KEEP_MEMORY)")
    for internal in ("--job", "--rank", "--rendezvous"):
        parser.add_argument(internal, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.job:
        serve(json.loads(options.job), int(options.rank), options.rendezvous)
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the peers' folders are removed too
        configs = [config for config in (*CONFIGS, *GPT_CONFIGS) if not options.width or config.width in options.width]
        environment = KEEP_MEMORY if options.keep_memory else {}
        print_table(configs, options.python, options.steps, options.rounds, environment)


if __name__ == "__main__":
    main()
