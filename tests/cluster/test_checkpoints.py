"""Checkpoints on disk: whole or not there, checked by their checksums, and those of their step."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cluster.actors.drain_notice import DrainNotice
from cluster.checkpoints import layer_files
from cluster.checkpoints.folder import CheckpointFolder, CheckpointReader, damaged_files, read_manifest
from cluster.checkpoints.layer_files import LayerFiles, file_of, write_layer
from cluster.checkpoints.manifest import MANIFEST, Manifest, in_layer_order
from cluster.run.checkpointing import RunCheckpoints
from cluster.run.resuming import find_checkpoint
from coordinator import run_files
from coordinator.checkpoints.position import Position
from coordinator.job.checkpoint_section import CheckpointSection
from stages.errors import InvalidData
from stages.snapshots import Written
from tests.jobs import digits_job

ARRAYS = {"0.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "0.bias": np.ones(2, dtype=np.float32)}


def saved(folder: CheckpointFolder, step: int, **arrays: Any) -> Path:
    """Write a whole checkpoint of one layer."""
    folder.begin(step)
    writer = LayerFiles(folder.path)
    writer.take(step, {"0": {**ARRAYS, **arrays}}, copy=False)
    outcome = writer.look(wait=True)
    assert outcome is not None, "it was just written"
    assert outcome.error == ""
    return folder.finish(
        Manifest(
            position=Position(step=step), document={}, fingerprint=1, train_rows=2, files=in_layer_order(outcome.files)
        )
    )


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / run_files.CHECKPOINTS)


def test_a_layers_file_is_read_by_the_library(tmp_path: Path) -> None:
    empty = {"2.1.weight": np.empty((0, 3)), "2.1.weight.exp_avg": np.full((3, 1), np.pi)}
    for arrays in (ARRAYS, empty):
        written = write_layer(tmp_path / file_of("2.1"), "2.1", arrays)
        found = load_file(tmp_path / written.name)
        assert list(found) == list(arrays)
        assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
        assert all(found[name].dtype == arrays[name].dtype for name in arrays)
        assert written.n_bytes == (tmp_path / written.name).stat().st_size


def test_arrays_that_the_library_wrote_are_read(tmp_path: Path) -> None:
    save_file(ARRAYS, tmp_path / file_of("0"))
    out = np.zeros((2, 3), dtype=np.float32)
    reader = CheckpointReader(tmp_path)
    reader.read("0", "0.weight", out)
    reader.close()
    assert np.array_equal(out, ARRAYS["0.weight"])
    with pytest.raises(InvalidData, match=r"layer-0\.safetensors: 0\.gain cannot be read"):
        CheckpointReader(tmp_path).read("0", "0.gain", out)


def test_a_background_save_has_the_values_of_its_step(
    folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pytorch#144657: a background save held values of later steps."""
    go_on, write = threading.Event(), layer_files.write_layer

    def held(*arguments: Any) -> Any:
        assert go_on.wait(10)
        return write(*arguments)

    monkeypatch.setattr(layer_files, "write_layer", held)
    folder.begin(7)
    weight, writer = np.zeros(1000, dtype=np.float32), LayerFiles(folder.path)
    writer.take(7, {"0": {"0.weight": weight}}, copy=True)
    weight += 1  # the next step's update
    assert writer.look(wait=False) is None
    go_on.set()
    outcome = writer.look(wait=True)
    assert outcome is not None
    assert outcome.step == 7
    assert writer.look(wait=True) is None  # it is told once
    assert not load_file(folder.path / ".step-00000007" / file_of("0"))["0.weight"].any()


@pytest.mark.parametrize("phase", ["nothing", "one file", "all files", "half a manifest", "deleting"])
def test_a_save_that_was_killed_in_any_phase_is_never_taken_for_a_checkpoint(
    folder: CheckpointFolder, phase: str
) -> None:
    """KempnerForge#102: `latest` named a checkpoint that was not durable."""
    saved(folder, 90)
    unfinished = folder.path / ".step-00000100"
    if phase == "deleting":
        place = saved(folder, 100)
        (place / MANIFEST).unlink()
    else:
        folder.begin(100)
        if phase != "nothing":
            (unfinished / file_of("0")).write_bytes(b"half")
        if phase == "half a manifest":
            (unfinished / MANIFEST).write_bytes(b'{"format": ')
    assert folder.steps() == [90]
    assert find_checkpoint(folder.path.parent, print).step == 90
    folder.begin(110)  # the next save removes what is left of it
    assert sorted(entry.name for entry in folder.path.iterdir() if entry.name.startswith(".")) == [".step-00000110"]
    saved(folder, 100)
    assert folder.steps() == [90, 100]


def test_steps_are_in_the_order_of_numbers(folder: CheckpointFolder) -> None:
    for step in (99_999_999, 100_000_000, 7):
        saved(folder, step)
    assert folder.steps() == [7, 99_999_999, 100_000_000]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_cut, "has 199 bytes, but 200 were written"),
        (_flip, "its bytes are not those that were written"),
        (Path.unlink, "No such file"),
    ],
    ids=["truncated", "a bit flipped", "missing"],
)
def test_a_damaged_file_is_refused_and_the_checkpoint_before_it_is_used(
    folder: CheckpointFolder, damage: Any, told: str
) -> None:
    saved(folder, 10)
    place = saved(folder, 20)
    damage(place / file_of("0"))
    before = sorted((path.name, path.stat().st_size) for path in place.iterdir())
    (line,) = damaged_files(place, read_manifest(place))
    told = told.replace("199", f"{read_manifest(place).n_bytes - 1}").replace("200", f"{read_manifest(place).n_bytes}")
    assert line.startswith(f"{place / file_of('0')}: ")
    assert told in line
    lines: list[str] = []
    assert find_checkpoint(folder.path.parent, lines.append).step == 10
    assert lines == [f"{line}; trying the checkpoint before it"]
    with pytest.raises(InvalidData, match=r"layer-0\.safetensors: "):
        find_checkpoint(place, print)
    assert sorted((path.name, path.stat().st_size) for path in place.iterdir()) == before


def test_a_newer_format_says_its_version(folder: CheckpointFolder) -> None:
    place = saved(folder, 10)
    document = json.loads((place / MANIFEST).read_text())
    (place / MANIFEST).write_text(json.dumps({**document, "format": "pipetrain.checkpoint/2"}))
    with pytest.raises(InvalidData, match=r"has the format 'pipetrain\.checkpoint/2', but this pipetrain \("):
        find_checkpoint(place, print)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"\xff", b'{"format": "pipetrain.checkpoint/1"}', b"[" * 100_000]
)
def test_a_manifest_that_is_none_is_one_line(folder: CheckpointFolder, content: bytes) -> None:
    place = saved(folder, 10)
    (place / MANIFEST).write_bytes(content)
    with pytest.raises(InvalidData, match=r"checkpoint\.json: ") as caught:
        read_manifest(place)
    assert len(caught.value.problems) == 1


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _checkpoints(
    folder: CheckpointFolder, section: CheckpointSection | None
) -> tuple[RunCheckpoints, _Clock, list[Any]]:
    clock, events = _Clock(), list[Any]()
    found = RunCheckpoints(
        *(folder, section, digits_job()),
        fingerprint=1,
        train_rows=2,
        event=lambda what, **details: events.append((what, details)),
        clock=clock,
    )
    return found, clock, events


def test_old_checkpoints_go_only_when_a_new_one_is_whole(folder: CheckpointFolder) -> None:
    checkpoints, _, events = _checkpoints(folder, CheckpointSection(every_steps=1, keep=1))
    writer = LayerFiles(folder.path)
    for step in (1, 2):
        assert checkpoints.due(step)
        assert not checkpoints.due(step + 1), "one is under way"
        writer.take(step, {"0": ARRAYS}, copy=True)
        checkpoints.copied(step, [0.1])
        checkpoints.written([None, None])
        checkpoints.written([writer.look(wait=True), None])
        assert folder.steps() == [step - 1][: step - 1], "a worker has not written its part"
        checkpoints.written([None, Written(step)])
        assert folder.steps() == [step]
    assert [(what, details["step"]) for what, details in events] == [("checkpoint", 1), ("checkpoint", 2)]


def test_a_disk_that_is_full_costs_the_checkpoint_and_not_the_run(folder: CheckpointFolder) -> None:
    saved(folder, 5)
    checkpoints, clock, events = _checkpoints(folder, CheckpointSection(every_seconds=10))
    clock.now = 10.0
    assert checkpoints.due(6)
    checkpoints.written([Written(6, error="/run: No space left on device")])
    assert events == [("checkpoint not saved", {"step": 6, "cause": "/run: No space left on device"})]
    assert folder.steps() == [5]
    assert [entry.name for entry in folder.path.iterdir()] == ["step-00000005"]
    assert not checkpoints.due(7), "it waits before it tries again"
    clock.now = 20.0
    assert checkpoints.due(8)


@pytest.mark.parametrize("section", [None, CheckpointSection(every_steps=100)])
def test_a_node_that_leaves_soon_is_a_reason_to_save_once(
    folder: CheckpointFolder, section: CheckpointSection | None
) -> None:
    """Ray's notice of a node that the run does not use is none."""
    draining: list[str] = ["another"]
    checkpoints, clock, _ = _checkpoints(folder, section)
    notice = DrainNotice(lambda: {"a", "b"}, lambda: draining, clock)
    checkpoints.is_urgent = lambda: bool(notice.news())
    assert not checkpoints.due(1)
    draining.append("b")
    assert not checkpoints.due(2), "Ray is asked every two seconds"
    clock.now += 2.0
    assert checkpoints.due(3)
    checkpoints.written([Written(3)])
    clock.now += 2.0
    assert not checkpoints.due(4)
    draining.append("a")
    clock.now += 2.0
    assert checkpoints.due(5)


def test_a_worker_that_cannot_write_says_where_and_why(folder: CheckpointFolder) -> None:
    writer = LayerFiles(folder.path)  # the folder is not there
    writer.take(3, {"0": ARRAYS}, copy=True)
    outcome = writer.look(wait=True)
    assert outcome is not None
    assert outcome.error == f"{folder.path}/.step-00000003: No such file or directory"
