"""`python -m benchmarks.layer_costs`: the cost that each kind of layer tells, against its time in three transformers.

The planner cuts networks by these costs. A cost counts operations of a matrix product; the table shows it as the time
of so many operations at the speed of the network's own linear layers, over the time that was measured (of one thread).
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import GPT_CONFIGS, ONE_THREAD, VOCABULARY, GptConfig

if TYPE_CHECKING:
    from coordinator.job.spec import JobSpec

_STEPS = 8


def main() -> None:
    """Measure each network in this process and print a table."""
    os.environ.update(ONE_THREAD)  # before NumPy loads
    from stages.process_memory import keep_freed_memory

    keep_freed_memory()
    print("| network | layer | half | measured, ms | told / measured |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for config in GPT_CONFIGS:
            _report(config, Path(folder))


def _report(config: GptConfig, folder: Path) -> None:
    from benchmarks.ours import job_for
    from cluster.data.sources import load_data
    from coordinator.plan.partition import action_costs

    spec = load_data(job_for(config, folder, schedule="gpipe", group=1, stages=1)).spec
    model, rows = spec.model_spec(), config.batch // config.micro_batches
    told: dict[tuple[str, str], float] = defaultdict(float)
    for op, costs in zip(model.network.ops, action_costs(model), strict=True):
        for half, cost in zip("FIW", costs, strict=True):
            told[op.kind, half] += cost * rows
    times = _times(spec, rows)
    linear = [key for key in told if key[0] == "linear"]
    speed = sum(told[key] for key in linear) / sum(times[key] for key in linear)
    for key in sorted(key for key in told if told[key]):
        ratio = told[key] / speed / times[key]
        print(
            f"| {config.layers} × {config.width} | {key[0]} | {key[1]} | {times[key] * 1e3:.2f} | {ratio:.2f} |",
            flush=True,
        )


def _times(spec: JobSpec, rows: int) -> dict[tuple[str, str], float]:
    """Return the median thread seconds of all operations of each kind, in F, I and W of one micro-batch."""
    import numpy as np

    from stages.layers.base import Moment
    from stages.stage import Stage

    model = spec.model_spec()
    spent: dict[tuple[str, str], float] = defaultdict(float)

    def timed(key: tuple[str, str], call: Callable[..., None]) -> Callable[..., None]:
        def run(*arguments: Any, **options: Any) -> None:
            began = time.thread_time()
            call(*arguments, **options)
            spent[key] += time.thread_time() - began

        return run

    for op in model.network.ops:
        for half, name in zip("FIW", ("forward", "backward_input", "backward_weight"), strict=True):
            setattr(op.layer, name, timed((op.kind, half), getattr(op.layer, name)))
    stage = Stage(model, 0, len(model.network.ops), spec.optimizer())
    tokens: Any = np.random.default_rng(0).integers(0, VOCABULARY, (1, rows * model.input.positions), dtype=np.int32)
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for step in range(_STEPS + 2):
        spent.clear()
        stage.begin_step(1)
        y = stage.forward(0, tokens, Moment(training=True, step=step))
        stage.backward(0, np.full_like(y, 1 / y.size))
        for key, seconds in spent.items():
            if step >= 2:
                found[key].append(seconds)
    return {key: statistics.median(seconds) for key, seconds in found.items()}


if __name__ == "__main__":
    main()
