"""`python -m benchmarks.faults`: how soon a lost worker is found, and when the run makes new steps again.

Trains a network on three workers in a Ray of its own. At random actions of random steps, workers are killed, stopped
(SIGSTOP) or cut off from the others, in random order. Prints a table with the percentiles of each kind; exits with 1 if
a target is missed or a row is not identical.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cluster.run.run_dir import RunDir
from cluster.run.training import Run, Where
from coordinator.chaos.story import STRUCK
from coordinator.job.spec import JobSpec, parse_job
from coordinator.train.story import CAUGHT_UP, LOST, RECOVERED
from stages.orders import Fault

KINDS = ("kill", "stop", "block", "partition")
_LAYERS, _ROWS, _WORKERS = 6, 512, 3
_EVERY = 10  # steps from one checkpoint to the next, and about as many between two faults
_DEAD_S, _STEP_S = 1.0, 5.0
_MORE_S = 1.25  # a hang's message has 3 × the slowest action + 0.75 s, wanted are 2 s


class Found(NamedTuple):
    """What came of a fault, in seconds from it: when it was found, how soon it must be, and when a new step was made.
    `lost` counts the steps that were made again."""

    kind: str
    found_s: float
    allowed_s: float
    first_step_s: float
    lost: int


def _job(folder: Path, width: int, steps: int, spare: int) -> JobSpec:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(_ROWS, width)).astype(np.float32)
    np.savez(folder / "rows.npz", x=x, y=x[:, :1])
    layers: list[Any] = [entry for _ in range(_LAYERS) for entry in ({"linear": {"units": width}}, "relu")]
    return parse_job(
        {
            "name": "faults",
            "model": {"input": [width], "layers": [*layers, {"linear": {"units": 1}}], "loss": "mse"},
            "data": {"source": str(folder / "rows.npz"), "validation": 0.1},
            "training": {
                "steps": steps,
                "batch_size": 128,
                "micro_batches": 4,
                "optimizer": {"sgd": {"learning_rate": 1e-4, "momentum": 0.9}},
            },
            "pipeline": {"stages": _WORKERS, "schedule": "1f1b"},
            "checkpoint": {"every_steps": _EVERY},
            "recovery": {"max_restarts": 1_000_000, "backoff": 0, "spare": spare},
        }
    )


def _campaign(kinds: Sequence[str], each: int, seed: int) -> tuple[dict[int, list[Fault]], int]:
    """Return the faults of each worker, and the steps that the run needs."""
    choose, step = random.Random(seed), 2 * _EVERY
    order = [kind for kind in kinds for _ in range(each)]
    choose.shuffle(order)
    planned: dict[int, list[Fault]] = {}
    for n, kind in enumerate(order):
        step += _EVERY + choose.randrange(_EVERY)
        worker = choose.randrange(_WORKERS)
        action = f"{worker}{choose.choice('FB')}{choose.randrange(4)}"
        planned.setdefault(worker, []).append(Fault(what=kind, step=step, action=action, id=str(n)))  # type: ignore[arg-type]
    return planned, step + _EVERY


def outcomes(events: Iterable[Mapping[str, Any]]) -> list[Found]:
    """Return what came of each fault, from the run's events. Each loss of a worker follows from the last fault before
    it; raises ValueError if one does not."""
    faults = sorted((event["time_s"], event["kind"]) for event in events if event["event"] == STRUCK)
    losses = [event for event in events if event["event"] == LOST]
    recovered = [event for event in events if event["event"] == RECOVERED]
    if not len(faults) == len(losses) == len(recovered):
        raise ValueError(f"{len(faults)} faults, {len(losses)} losses, {len(recovered)} recoveries")
    found = []
    for (struck, kind), loss, back in zip(faults, losses, recovered, strict=True):
        limit = re.search(r"within ([\d.]+) s", loss["cause"])
        allowed = _DEAD_S if kind == "kill" else math.nan if limit is None else float(limit[1]) + _MORE_S
        found.append(Found(kind, _seconds(loss) - struck, allowed, _seconds(back) - struck, back["steps_lost"]))
    return found


def _seconds(event: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least so many percent of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def table(found: Sequence[Found]) -> tuple[str, bool]:
    """Return a row for each kind, and whether all targets are reached."""
    lines = [
        "| fault | number | found: p50, p99 | wanted (p99) | first new step: p50, p99 | wanted | steps made again |",
        "|---|---|---|---|---|---|---|",
    ]
    reached = True
    for kind in sorted({one.kind for one in found}, key=KINDS.index):
        own = [one for one in found if one.kind == kind]
        first = [one.first_step_s for one in own]
        share = percentile([one.found_s / one.allowed_s for one in own], 99)
        reached &= share <= 1 and (kind != "kill" or percentile(first, 99) <= _STEP_S)
        wanted = f"≤ {percentile([one.allowed_s for one in own], 50):.2f} s{'' if share <= 1 else ': missed'}"
        step = f"≤ {_STEP_S:g} s" if kind == "kill" else ""
        lines.append(
            f"| {kind} | {len(own)} | {_both([one.found_s for one in own])} | {wanted} | {_both(first)} | {step} "
            f"| {sum(one.lost for one in own) / len(own):.1f} |"
        )
    return "\n".join(lines), reached


def _both(values: Sequence[float]) -> str:
    return f"{percentile(values, 50):.2f} s, {percentile(values, 99):.2f} s"


def _measure(kinds: Sequence[str], each: int, width: int, spare: int, seed: int) -> tuple[str, bool]:
    faults, steps = _campaign(kinds, each, seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = Run.prepare(_job(folder, width, steps, spare), Where(), faults=faults)
        run_dir = RunDir.create(folder / "run", run.spec)
        for _ in run.rows(run_dir):
            pass
        run_dir.close()
        events = [json.loads(line) for line in (folder / "run" / "events.jsonl").read_text().splitlines()]
    found = outcomes(events)
    rows, reached = table(found)
    same = all(event["identical"] for event in events if event["event"] == CAUGHT_UP)
    end = (
        f"{len(found)} faults in {time.monotonic() - began:.0f} s; {'all identical' if same else 'NOT IDENTICAL'}; "
        f"width {width}{', with a spare process' if spare else ''}; load average {os.getloadavg()[0]:.0f}"
    )
    return f"{rows}\n\n{end}", reached and same


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=30, help="of each kind")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["kill", "stop", "partition"])
    parser.add_argument("--width", type=int, default=512, help="of the six layers; 2048: 100 MB of weights")
    parser.add_argument("--spare", action="store_true", help="with a spare process")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    text, reached = _measure(asked.kinds, asked.faults, asked.width, int(asked.spare), asked.seed)
    print(text)
    return 0 if reached else 1


if __name__ == "__main__":
    raise SystemExit(main())
