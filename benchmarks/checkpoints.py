"""Speed of checkpoints: writing against `dd` with fsync, going on at another cut against reading, and the stall.

python -m benchmarks.checkpoints write resume stall [--folder DIR] [--rounds 5] [--seconds 100]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

from cluster.checkpoints.folder import CheckpointFolder, CheckpointReader
from cluster.checkpoints.layer_files import LayerFiles
from cluster.checkpoints.manifest import Manifest, in_layer_order
from cluster.run.resuming import find_checkpoint
from cluster.run.run_dir import RunDir
from cluster.run.training import Run, Where
from coordinator import run_files
from coordinator.checkpoints.position import Position
from coordinator.job.spec import JobSpec, parse_job
from stages.layer_state import layer_states, restore
from stages.snapshots import WrittenFile
from stages.stage import Stage

UNITS = 4096


def _job(layers: int = 5, units: int = UNITS, **sections: object) -> JobSpec:
    """A network of square layers with AdamW: 5 layers of 4096 have a state of 1.007 GB."""
    return parse_job(
        {
            "model": {
                "input": [units],
                "layers": [{"linear": {"units": units}}] * layers,
                "loss": "mse",
            },
            "data": {"source": "rows.npz", "validation": 0},
            "training": {"epochs": 1, "batch_size": 64, "optimizer": {"adamw": {"learning_rate": 1e-4}}},
            **sections,
        }
    )


def _stages(spec: JobSpec, bounds: tuple[int, ...]) -> list[Stage]:
    model = spec.model_spec()
    return [Stage(model, a, b, spec.optimizer()) for a, b in pairwise(bounds)]


def _save(folder: CheckpointFolder, step: int, stages: list[Stage], spec: JobSpec) -> int:
    """Write a whole checkpoint, one worker after another. Return its bytes."""
    folder.begin(step)
    files = list[WrittenFile]()
    for stage in stages:
        writer = LayerFiles(folder.path)
        writer.take(step, layer_states([stage]), copy=False)
        outcome = writer.look(wait=True)
        assert outcome is not None, "it was just written"
        assert not outcome.error, outcome.error
        files += outcome.files
    manifest = Manifest(
        position=Position(step=step),
        document=spec.document(),
        fingerprint=0,
        train_rows=1,
        files=in_layer_order(files),
    )
    folder.finish(manifest)
    return manifest.n_bytes


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _dd(folder: Path, n_bytes: int) -> float:
    """Return the seconds that `dd` takes."""
    command = ["dd", "if=/dev/zero", f"of={folder}/dd", "bs=4M", f"count={-(-n_bytes // 2**22)}", "conv=fsync"]
    return _timed(lambda: subprocess.run(command, check=True, capture_output=True))


def _forget(folder: Path) -> None:
    """Drop the folder's files from the kernel's cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def _read(folder: Path) -> None:
    buffer = bytearray(2**22)
    for path in sorted(folder.glob("*")):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def write(folder: Path, rounds: int) -> None:
    """In turn: 1 GB by `dd` with fsync, and a checkpoint of as many bytes."""
    spec = _job()
    stages, checkpoints, ratios = _stages(spec, (0, 2, 5)), CheckpointFolder(folder / "w"), []
    for step in range(rounds):
        began = time.perf_counter()
        n_bytes = _save(checkpoints, step, stages, spec)
        ours = time.perf_counter() - began
        dd = _dd(folder, n_bytes)
        ratios.append(dd / ours)
        print(f"{n_bytes / 1e9:.3f} GB: {n_bytes / ours / 1e6:,.0f} MB/s, dd {n_bytes / dd / 1e6:,.0f} MB/s")
        checkpoints.delete(step)
    print(f"median of the ratios: {statistics.median(ratios):.2f} (wanted: at least 0.7)")


def resume(folder: Path, rounds: int) -> None:
    """In turn: read all files, and find, check and load the checkpoint at another cut; both from the disk."""
    spec = _job()
    checkpoints = CheckpointFolder(folder / run_files.CHECKPOINTS)
    _save(checkpoints, 1, _stages(spec, (0, 2, 5)), spec)
    place, stages, ratios = checkpoints.place(1), _stages(spec, (0, 1, 3, 4, 5)), []

    def load() -> None:
        found = find_checkpoint(place, print)
        with ThreadPoolExecutor(len(stages)) as pool:  # as workers do, each in a process of its own
            list(pool.map(lambda stage: restore([stage], CheckpointReader(found.place).read), stages))

    for _ in range(rounds):
        _forget(place)
        reading = _timed(lambda: _read(place))
        _forget(place)
        loading = _timed(load)
        ratios.append(loading / reading)
        print(f"read {reading:.2f} s, resume at another cut {loading:.2f} s")
    print(f"median of the ratios: {statistics.median(ratios):.2f} (wanted: at most 1.5)")


def stall(folder: Path, seconds: float) -> None:
    """Train for so long with checkpoints by the default stall budget; show the share of the time that they took."""
    import numpy as np

    np.savez(folder / "rows.npz", x=np.ones((6400, 1024), "f4"), y=np.ones((6400, 1024), "f4"))
    document = _job(units=1024, layers=8, checkpoint={}, pipeline={"stages": 2}).document()
    document["data"]["source"] = str(folder / "rows.npz")
    document["training"]["epochs"] = 10**6
    run = Run.prepare(parse_job(document), Where(local=True))
    run_dir, began, ends = RunDir.create(folder / "run", run.spec), time.monotonic(), 0.0
    for _ in run.rows(run_dir):
        ends = time.monotonic()
        if ends - began > seconds:
            run.stop()
    run_dir.close()
    events = [json.loads(line) for line in (folder / "run" / run_files.EVENTS).read_text().splitlines()]
    saved = [event for event in events if event["event"] == "checkpoint"]
    stalled = sum(event["stall_seconds"] for event in saved)
    for event in saved:
        print(
            f"step {event['step']}: {event['bytes'] / 1e6:,.0f} MB, stall {event['stall_seconds'] * 1e3:.0f} ms, "
            f"written after {event['seconds']:.2f} s"
        )
    print(f"{len(saved)} checkpoints in {ends - began:.0f} s stalled {stalled / (ends - began):.2%} (wanted: 3.5%)")


def main() -> None:
    """Run the named parts in a folder that is removed afterwards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="+", choices=["write", "resume", "stall"])
    parser.add_argument("--folder", type=Path, default=Path.cwd())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=100.0)
    options = parser.parse_args()
    for part in options.parts:
        folder = Path(tempfile.mkdtemp(prefix="checkpoints-", dir=options.folder))
        try:
            print(f"{part}:")
            if part == "stall":
                stall(folder, options.seconds)
            else:
                {"write": write, "resume": resume}[part](folder, options.rounds)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
