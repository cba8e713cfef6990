"""`python -m benchmarks.faults`: how soon a killed or stopped worker is found, and when the run makes new steps again.

Trains a network of about 100 MB on three workers in a Ray of its own, kills (or with `--stop` stops) one worker after
the other, and reads the times of the run's events.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from cluster.run.run_dir import RunDir
from cluster.run.training import Run, Where
from coordinator.job.spec import JobSpec, parse_job

_WIDTH, _LAYERS, _ROWS = 2048, 6, 512
_EVERY = 10  # steps from one checkpoint to the next


def _job(folder: Path, steps: int, spare: int) -> JobSpec:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(_ROWS, _WIDTH)).astype(np.float32)
    np.savez(folder / "rows.npz", x=x, y=x[:, :1])
    layers: list[Any] = [entry for _ in range(_LAYERS) for entry in ({"linear": {"units": _WIDTH}}, "relu")]
    return parse_job(
        {
            "name": "faults",
            "model": {"input": [_WIDTH], "layers": [*layers, {"linear": {"units": 1}}], "loss": "mse"},
            "data": {"source": str(folder / "rows.npz"), "validation": 0.1},
            "training": {
                "steps": steps,
                "batch_size": 128,
                "micro_batches": 4,
                "optimizer": {"sgd": {"learning_rate": 1e-4, "momentum": 0.9}},
            },
            "pipeline": {"stages": 3, "schedule": "1f1b"},
            "checkpoint": {"every_steps": _EVERY},
            "recovery": {"max_restarts": 1000, "backoff": 0, "spare": spare},
        }
    )


def _events(folder: Path, kind: str) -> list[Mapping[str, Any]]:
    found = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [event for event in found if event["event"] == kind]


def _seconds(event: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


def _measure(faults: int, number: signal.Signals, spare: int) -> str:
    choose, struck = random.Random(1), list[float]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = Run.prepare(_job(folder, (faults + 1) * 3 * _EVERY, spare), Where())
        run_dir = RunDir.create(folder / "run", run.spec)
        after = 2 * _EVERY
        for row in run.rows(run_dir):
            if len(struck) < faults and row.step >= after:
                pids: dict[int, int] = {}
                for event in (*_events(folder / "run", "started"), *_events(folder / "run", "recovered")):
                    pids |= {at["worker"]: at["pid"] for at in event["workers"]}
                os.kill(pids[choose.randrange(3)], number)
                struck.append(time.time())
                after = row.step + 2 * _EVERY + choose.randrange(_EVERY)
        run_dir.close()
        lost, recovered = _events(folder / "run", "worker lost"), _events(folder / "run", "recovered")
        caught_up = _events(folder / "run", "caught up")
        same = all(event["identical"] for event in caught_up)
        found = [_seconds(event) - at for event, at in zip(lost, struck, strict=True)]
        first = [_seconds(event) - at for event, at in zip(recovered, struck, strict=True)]
        again = [event["steps_lost"] for event in recovered]
        limits = [float(limit[1]) for event in lost if (limit := re.search(r"within ([\d.]+) s", event["cause"]))]
    allowed = f" of at most {statistics.median(limits) + 1.25:.2f} s" if limits else ""
    return (
        f"{faults} × {number.name}: found {_told(found)}{allowed}, first new step {_told(first)}, "
        f"{statistics.mean(again):.1f} steps made again on average, {'all identical' if same else 'NOT IDENTICAL'}"
    )


def _told(seconds: Sequence[float]) -> str:
    return f"after {statistics.median(seconds):.2f} s (median), {max(seconds):.2f} s (longest)"


def main() -> None:
    """Print a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=10)
    parser.add_argument("--stop", action="store_true", help="stop workers (SIGSTOP)")
    parser.add_argument("--spare", action="store_true", help="with a spare process")
    asked = parser.parse_args()
    text = _measure(asked.faults, signal.SIGSTOP if asked.stop else signal.SIGKILL, int(asked.spare))
    print(f"{'with a spare process: ' if asked.spare else ''}{text}; load average {os.getloadavg()[0]:.0f}")


if __name__ == "__main__":
    main()
