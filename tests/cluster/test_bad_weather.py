"""A disk that is full for a while, and a clock that jumps: neither costs a run anything but a checkpoint."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from cluster.checkpoints.folder import CheckpointFolder, damaged_files, read_manifest
from cluster.run.run_dir import RunDir
from cluster.run.training import Run, Where
from coordinator.job.spec import JobSpec, parse_job
from tests.cluster.test_run_ends import events
from tests.jobs import digits_job, pipetrain_here
from tests.small_disk import fill, small_disk

ROOM = 128 * 1024  # for rows and events, but not for a checkpoint of more than 300 KiB


def _job(units: int, epochs: int) -> JobSpec:
    """With clipping, steps are made one by one."""
    document = digits_job(stages=2).document()
    document["model"]["layers"][0]["linear"]["units"] = units
    document["training"] |= {"clip_norm": 5.0, "epochs": epochs}
    return parse_job({**document, "checkpoint": {"every_steps": 5, "keep": 1}})


def test_a_run_outlives_a_full_disk_keeps_the_old_checkpoint_and_tries_again(tmp_path: Path) -> None:
    spec = _job(units=512, epochs=100_000)
    with small_disk(tmp_path / "disk", "4m") as disk:
        run, run_dir = Run.prepare(spec, Where(local=True)), RunDir.create(disk / "run", spec)
        folder, filler = CheckpointFolder(run_dir.checkpoints), disk / "filler"
        waits_for, seen = iter(("checkpoint", "checkpoint not saved", "checkpoint", "the end")), 0
        wanted = next(waits_for)
        for _ in run.rows(run_dir):
            told = [event["event"] for event in events(disk / "run")][seen:]
            if wanted not in told:
                continue
            seen += told.index(wanted) + 1
            wanted = next(waits_for)
            if wanted == "checkpoint not saved":
                fill(disk)
                os.truncate(filler, filler.stat().st_size - ROOM)
            elif wanted == "checkpoint":
                (old,) = folder.steps()
                assert not damaged_files(folder.place(old), read_manifest(folder.place(old))), "the old one stays good"
                assert [entry.name for entry in folder.path.iterdir()] == [folder.place(old).name]
                filler.unlink()
            else:
                run.stop()
        run_dir.close()
        assert run.result is not None
        assert run.result.checkpoint == run.result.steps > old
        (missed,) = {event["cause"].rpartition(": ")[2] for event in events(disk / "run") if "cause" in event}
        assert missed == "No space left on device"
        assert pipetrain_here("checkpoints", "verify", disk / "run").returncode == 0


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither when checkpoints are saved, nor which is the newest, nor how long a stopped run may save."""
    spec = _job(units=32, epochs=2)
    jumps, now = itertools.cycle((86_400.0 * 400, -86_400.0 * 400, 0.0)), time.time
    for name in ("calm", "jumping"):
        if name == "jumping":
            monkeypatch.setattr(time, "time", lambda: now() + next(jumps))
        run, run_dir = Run.prepare(spec, Where(local=True)), RunDir.create(tmp_path / name, spec)
        for row in run.rows(run_dir):
            if row.step == 17:
                run.stop()
        run_dir.close()
        assert run.result is not None
        assert (run.result.steps, run.result.checkpoint, run.result.saved) == (17, 17, True)
        done = pipetrain_here("resume", tmp_path / name, "--local")
        assert done.returncode == 0, done.stderr
        assert "going on after step 17 of 28" in done.stderr
    monkeypatch.undo()
    calm, jumping = (load_file(tmp_path / name / "model.safetensors") for name in ("calm", "jumping"))
    assert all(calm[name].tobytes() == jumping[name].tobytes() for name in calm)
    kinds = [[event["event"] for event in events(tmp_path / name)] for name in ("calm", "jumping")]
    assert [kind for kind in kinds[0] if kind != "checkpoint"] == [kind for kind in kinds[1] if kind != "checkpoint"]
