"""`python -m benchmarks.large_data [--only speed|memory]`: rows that stay in their file against rows in memory.

speed    the same float32 rows of 1,000 features in two .npz files: rows one after another, which stay in the file, and
         columns one after another, which are read into memory; both jobs train on two workers, in turns
memory   a file of `--gb` GB, most of it a hole, trains some hundred steps: the peak of each worker against its plan,
         and the time to check all of its rows
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ours import OurPeer
from cluster.actors.process_limits import begin_measuring
from cluster.actors.ray_session import ray_session
from cluster.data.sources import load_data
from coordinator.job.spec import JobSpec, parse_job
from coordinator.plan.estimate import estimate
from coordinator.texts import size
from stages.process_memory import peak_resident_bytes

FEATURES, CLASSES = 1000, 10
_HOLE = bytes(2**24)


def main() -> None:
    """Run both measurements, and print their tables."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", choices=("speed", "memory"), help="leave the other measurement out")
    arguments.add_argument("--gb", type=float, default=10.0, help="size of the large file")
    arguments.add_argument("--rounds", type=int, default=6, help="turns of each job")
    arguments.add_argument("--steps", type=int, default=300, help="steps on the large file")
    arguments.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder, ray_session(None, cpus=4, memory=0) as ray:
        if chosen.only != "memory":
            print("| hidden units | in memory, rows/s | from the file, rows/s | ratio by round | median |")
            print("|---|---|---|---|---|")
            for units in (64, 256, 1024):
                _speed(ray, Path(folder), units, chosen.rounds)
        if chosen.only != "speed":
            _memory(ray, Path(folder), int(chosen.gb * 1e9), chosen.steps)


def job(source: Path, units: int) -> JobSpec:
    """Return a job of two stages; two rows are for validation."""
    hidden: list[Any] = [{"linear": {"units": units}}, "relu"] * 2
    return parse_job(
        {
            "name": "large",
            "model": {
                "input": [FEATURES],
                "layers": [*hidden, {"linear": {"units": CLASSES}}],
                "loss": "cross_entropy",
            },
            "data": {"source": str(source), "validation": 2},
            "training": {
                "epochs": 1_000_000,
                "batch_size": 512,
                "micro_batches": 8,
                "optimizer": {"sgd": {"learning_rate": 0.01}},
            },
            "pipeline": {"stages": 2},
        }
    )


def _speed(ray: Any, folder: Path, units: int, rounds: int) -> None:
    n_rows = 100_000
    rng = np.random.default_rng(0)
    sources = [folder / "rows.npz", folder / "columns.npz"]
    if not sources[0].exists():
        x, y = rng.standard_normal((n_rows, FEATURES), dtype=np.float32), rng.integers(0, CLASSES, n_rows)
        np.savez(sources[0], x=x, y=y)
        np.savez(sources[1], x=np.asfortranarray(x), y=y)
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(OurPeer(ray, job(source, units))) for source in sources]
        steps = max(8, 4_000_000 // (FEATURES * units))
        speeds: list[list[float]] = [[], []]
        for turn in range(rounds + 1):
            for peer, found in zip(peers, speeds, strict=True):
                seconds = statistics.median(peer.measure(steps))
                if turn:  # the first turn warms up
                    found.append(512 / seconds)
    ratios = [filed / held for filed, held in zip(*speeds, strict=True)]
    print(
        f"| {units} | {statistics.median(speeds[1]):,.0f} | {statistics.median(speeds[0]):,.0f} "
        f"| {', '.join(f'{ratio:.3f}' for ratio in ratios)} | {statistics.median(ratios):.3f} |",
        flush=True,
    )


def _memory(ray: Any, folder: Path, n_bytes: int, steps: int) -> None:
    n_rows, source = n_bytes // (4 * FEATURES), folder / "large.npz"
    write_large(source, n_rows)
    print(f"\n{source.stat().st_size / 1e9:.2f} GB, {source.stat().st_blocks * 512 / 1e9:.2f} GB of it on disk")
    spec, before, began = job(source, 256), begin_measuring(), time.perf_counter()
    data = load_data(spec)
    print(f"checked in {time.perf_counter() - began:.1f} s; peak of the command + {_grown(before)}")
    with OurPeer(ray, spec) as peer:
        plan = estimate(peer.blueprint, data_bytes=data.nbytes + data.reading_bytes, validation_rows=2)
        seconds = statistics.median(peer.measure(steps))
        for worker, memory in zip(plan.workers, peer.workers.memory(), strict=True):
            peak, told = memory["peak_above_baseline"], f"{size(worker.total)} (data {size(worker.data_bytes)})"
            print(f"worker {worker.worker}: peak {size(peak)}, plan {told}, ratio {peak / worker.total:.3f}")
    print(f"{steps} steps, {512 / seconds:,.0f} rows/s; peak of the command + {_grown(before)}")


def _grown(before: int) -> str:
    return size(peak_resident_bytes() - before)


def write_large(path: Path, n_rows: int, real_rows: int = 2**14) -> None:
    """Write an .npz whose x is zero, and a hole on disk, but for the first rows."""
    rng = np.random.default_rng(0)
    real = rng.standard_normal((min(n_rows, real_rows), FEATURES), dtype=np.float32)
    header = io.BytesIO()
    shape = {"descr": "<f4", "fortran_order": False, "shape": (n_rows, FEATURES)}
    np.lib.format.write_array_header_1_0(header, shape)
    left = 4 * FEATURES * n_rows - real.nbytes
    with _WithHoles(path, "w+") as file, zipfile.ZipFile(file, "w") as archive:
        with archive.open("y.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array(member, rng.integers(0, CLASSES, n_rows))
        with archive.open("x.npy", "w", force_zip64=True) as member:
            member.write(header.getvalue())
            member.write(real.tobytes())
            while left:
                part = _HOLE if left >= len(_HOLE) else bytes(left)
                left -= member.write(part)


class _WithHoles(io.FileIO):
    """A file that leaves a hole where `_HOLE` is written."""

    def write(self, data: Any) -> int:
        if data is _HOLE:
            self.seek(len(_HOLE), io.SEEK_CUR)
            return len(_HOLE)
        return super().write(data)


if __name__ == "__main__":
    main()
