"""A run's event file, read again by TensorBoard."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.tracked_runs import TRAINED, run, tracked


def test_tensorboard_reads_back_every_scalar_and_the_job(tmp_path: Path) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="pip install 'pipetrain[tensorboard]'"
    )
    assert run(tracked(tensorboard=True), tmp_path / "digits-1") == []
    events = reader.EventAccumulator(str(tmp_path / "digits-1" / "tensorboard")).Reload()
    assert sorted(events.Tags()["scalars"]) == sorted([*TRAINED, "validation/loss", "validation/accuracy"])
    for tag, values in TRAINED.items():
        found = events.Scalars(tag)
        assert [event.value for event in found] == values
        assert [event.step for event in found] == [1, 2, 3][-len(values) :]
        assert all(abs(event.wall_time - time.time()) < 600 for event in found)
    assert [(event.step, event.value) for event in events.Scalars("validation/accuracy")] == [(3, 0.875)]
    (text,) = events.Tensors("job")
    assert "batch_size: 103" in text.tensor_proto.string_val[0].decode()


def test_runs_of_one_tensorboard_folder_stay_apart_and_attempts_go_on_in_the_same(tmp_path: Path) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_multiplexer", reason="pip install 'pipetrain[tensorboard]'"
    )
    spec = tracked(tensorboard=str(tmp_path / "logs"))
    for name, attempt in (("a", 1), ("b", 1), ("b", 2)):
        assert run(spec, tmp_path / name, attempt=attempt) == []
    found = reader.EventMultiplexer().AddRunsFromDirectory(str(tmp_path / "logs")).Reload()
    assert sorted(found.Runs()) == ["a", "b"]
    assert all(len(found.Scalars(name, "train/loss")) == 3 for name in found.Runs())


def test_two_runs_of_the_same_name_do_not_share_a_tensorboard_run(tmp_path: Path) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_multiplexer", reason="pip install 'pipetrain[tensorboard]'"
    )
    spec = tracked(tensorboard=str(tmp_path / "logs"))
    for folder, attempt in (("x", 1), ("y", 1), ("y", 2)):
        assert run(spec, tmp_path / folder / "run", attempt=attempt) == []
    found = reader.EventMultiplexer().AddRunsFromDirectory(str(tmp_path / "logs")).Reload()
    assert sorted(found.Runs()) == ["run", "run-2"]
    assert all(len(found.Scalars(name, "train/loss")) == 3 for name in found.Runs())


def test_a_tensorboard_folder_that_cannot_be_written_is_told_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'pipetrain[tensorboard]'")
    (tmp_path / "logs").write_text("a file stands there")
    (told,) = run(tracked(tensorboard=str(tmp_path / "logs")), tmp_path / "run")
    assert told.startswith("tracker tensorboard: dropped: ")
    assert str(tmp_path / "logs") in told


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_drops_tensorboard_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'pipetrain[tensorboard]'")
    real = Path.open

    def full(self: Path, mode: str = "r", **options: Any) -> Any:
        return real(Path("/dev/full"), "wb") if "tfevents" in self.name else real(self, mode, **options)

    monkeypatch.setattr(Path, "open", full)
    (told,) = run(tracked(tensorboard=True), tmp_path / "run")
    assert told == "tracker tensorboard: dropped: OSError: [Errno 28] No space left on device"
