"""`python -m benchmarks.data`: a generated .csv of 1 GB against Arrow's reader alone: time, peak memory, and what
preprocessing adds.

Each figure comes from a process of its own. Its memory is the peak of its resident memory minus that after its imports.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from coordinator.texts import size

_FEATURES, _CLASSES, _PART_ROWS = 20, 10, 20_000


def write_table(path: Path, n_bytes: int) -> None:
    """Write a table of about `n_bytes`, with numbers of six decimals and a label y: 20,000 rows again and again."""
    random = np.random.default_rng(0)
    numbers = random.normal(size=(_PART_ROWS, _FEATURES)) * 10.0 ** random.integers(-1, 4, size=_FEATURES)
    labels = random.integers(0, _CLASSES, size=_PART_ROWS)
    rows = [",".join([*(f"{v:.6f}" for v in row), str(y)]) for row, y in zip(numbers, labels, strict=True)]
    part = ("\n".join(rows) + "\n").encode()
    with path.open("wb") as file:
        file.write((",".join([*(f"f{k}" for k in range(_FEATURES)), "y"]) + "\n").encode())
        while file.tell() < n_bytes:
            file.write(part)


def _measured(what: str, path: str, precision: str) -> dict[str, float]:
    """Do one thing in this process, and return its seconds, its bytes above those after the imports, and more."""
    from pyarrow import csv

    import cluster.data.formats.arrow_csv  # noqa: F401 (before the clock starts)
    from cluster.data.files import Table, read_source
    from cluster.data.sources import load_data
    from coordinator.job.spec import parse_job

    spec = parse_job(
        {
            "precision": precision,
            "model": {"layers": [{"linear": {"units": "classes"}}], "loss": "cross_entropy"},
            "data": {"source": path},
            "training": {"epochs": 1, "batch_size": 64, "optimizer": {"sgd": {"learning_rate": 0.1}}},
        }
    )
    before, start, cpu = _peak(), time.perf_counter(), time.process_time()
    arrays = 0
    if what == "arrow":
        csv.read_csv(path)
    elif what == "reading":
        assert isinstance(read_source(path), Table)
    else:
        data = load_data(spec)
        n_rows, width = len(data.train) + len(data.validation), data.train.x.shape[1]
        arrays = n_rows * (width * np.dtype(precision).itemsize + data.train.y.itemsize)  # in memory or on disk
    return {
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,  # of all threads, less disturbed by other work on the machine
        "bytes": _peak() - before,
        "arrays": arrays,
    }


def _peak() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _in_a_process(what: str, path: Path, precision: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.data", "--one", what, "--path", str(path), "--precision", precision]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def main() -> None:
    """Write the file, measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=["arrow", "reading", "job"], help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="float32")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(_measured(given.one, given.path, given.precision)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        write_table(path, given.megabytes * 10**6)
        path.read_bytes()  # all readers find it in the page cache
        rounds = [
            {
                "arrow": _in_a_process("arrow", path, "float32"),
                "reading": _in_a_process("reading", path, "float32"),
                "float32": _in_a_process("job", path, "float32"),
                "float64": _in_a_process("job", path, "float64"),
            }
            for _ in range(given.rounds)
        ]
    print("| what | seconds | of Arrow's alone | of its CPU | peak memory | of the arrays |")
    print("|---|---|---|---|---|---|")
    for name in rounds[0]:
        seconds = median(one[name]["seconds"] for one in rounds)
        ratio = median(one[name]["seconds"] / one["arrow"]["seconds"] for one in rounds)
        cpu = median(one[name]["cpu"] / one["arrow"]["cpu"] for one in rounds)
        taken = max(one[name]["bytes"] for one in rounds)
        arrays = rounds[0][name]["arrays"] or rounds[0]["float32"]["arrays"]
        print(f"| {name} | {seconds:.2f} | {ratio:.2f} | {cpu:.2f} | {size(taken)} | {taken / arrays:.2f} |")
    added = median(one["float32"]["seconds"] / one["reading"]["seconds"] - 1 for one in rounds)
    print(f"\npreprocessing adds {added:.0%} of the time of reading (median of {given.rounds} rounds)")


if __name__ == "__main__":
    main()
