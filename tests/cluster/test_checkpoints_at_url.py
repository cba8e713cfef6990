"""Checkpoints at a URL: whole or not there, whatever fails; nothing is deleted before its successor is durable."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from cluster.checkpoints.at_url import CheckpointsAtUrl, fetch_newest, require_target
from cluster.checkpoints.folder import CheckpointFolder, damaged_files, newest_whole, read_manifest
from cluster.checkpoints.layer_files import step_folder
from cluster.checkpoints.manifest import Manifest
from cluster.checkpoints.uploading import CheckpointUploads
from cluster.data.rules import FREE, SourceRules
from cluster.run.checkpointing import RunCheckpoints
from coordinator.job.checkpoint_section import CheckpointSection
from coordinator.job.spec import parse_job
from stages.errors import InvalidData, InvalidJob, UserMistake
from tests.cluster.test_resume import LOCAL, results, train
from tests.jobs import digits_job, pipetrain_here

pytestmark = pytest.mark.filterwarnings("ignore:UPath 'failing'")
URL = "failing://bucket/run"


class FailingFileSystem(MemoryFileSystem):  # type: ignore[misc]
    """A file system in memory. `log` has what was done to files; the operation with the number `fails_at` fails."""

    protocol = "failing"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    log: ClassVar[list[tuple[str, str]]] = []
    fails_at: ClassVar[int | None] = None

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace("failing://", "memory://")))

    def _note(self, what: str, path: str) -> None:
        if len(self.log) == self.fails_at:
            raise ConnectionError("the network is gone")
        self.log.append((what, path.rpartition("run/")[2]))

    def _open(self, path: str, mode: str = "rb", *arguments: Any, **options: Any) -> Any:
        if mode != "rb":
            self._note("write", path)
        return super()._open(path, mode, *arguments, **options)

    def rm_file(self, path: str) -> None:
        self._note("delete", path)
        super().rm_file(path)


@pytest.fixture(autouse=True)
def files() -> Iterator[type[FailingFileSystem]]:
    fsspec.register_implementation("failing", FailingFileSystem, clobber=True)
    FailingFileSystem.clear_instance_cache()
    FailingFileSystem.store.clear()
    FailingFileSystem.pseudo_dirs[:] = [""]
    FailingFileSystem.log.clear()
    FailingFileSystem.fails_at = None
    yield FailingFileSystem
    FailingFileSystem.fails_at = None


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with checkpoints of the steps 5 and 14, and perhaps of one between them."""
    folder = tmp_path_factory.mktemp("run") / "run"
    train(folder, job(None))
    return folder


def job(to: str | None, epochs: int = 1) -> Any:
    document = digits_job(stages=2).document()
    document["training"]["epochs"] = epochs
    document["checkpoint"] = {"every_steps": 5, "keep": 100, **({} if to is None else {"to": to})}
    return parse_job(document)


def checkpoints_of(run: Path) -> list[tuple[Path, Manifest]]:
    folder = CheckpointFolder(run / "checkpoints")
    return [(folder.place(step), read_manifest(folder.place(step))) for step in folder.steps()]


def is_whole(folder: CheckpointFolder, step: int) -> bool:
    return not damaged_files(folder.place(step), read_manifest(folder.place(step)))


def test_a_copy_that_fails_anywhere_leaves_the_checkpoint_before_it_and_nothing_that_looks_like_one(
    run: Path, files: type[FailingFileSystem]
) -> None:
    (first, old), (second, new) = checkpoints_of(run)[:2]
    there = CheckpointsAtUrl(URL)
    there.put(first, old)
    n = len(files.log)
    assert files.log[-1] == ("write", "step-00000005/checkpoint.json"), "the manifest is the last"
    for fails_at in range(n, 2 * n):
        files.fails_at = fails_at
        with pytest.raises(ConnectionError):
            there.put(second, new)
        assert there.steps() == [5]
        files.fails_at = None
        assert is_whole(there, 5)
        del files.log[n:]
    there.put(second, new)
    assert there.steps() == [5, new.step]
    assert is_whole(there, new.step)


def test_a_deletion_that_fails_leaves_nothing_that_looks_like_a_checkpoint(
    run: Path, files: type[FailingFileSystem]
) -> None:
    place, manifest = checkpoints_of(run)[0]
    there = CheckpointsAtUrl(URL)
    there.put(place, manifest)
    files.fails_at = len(files.log) + 1
    with pytest.raises(ConnectionError):
        there.delete(5)
    assert there.steps() == []
    files.fails_at = None
    there.put(place, manifest)
    assert is_whole(there, 5)


def test_an_old_checkpoint_is_deleted_only_after_its_successor_is_whole(
    run: Path, files: type[FailingFileSystem]
) -> None:
    events: list[dict[str, Any]] = []
    spec = parse_job({**job(None).document(), "checkpoint": {"every_steps": 5, "keep": 1, "to": URL}})
    checkpoints = RunCheckpoints(
        CheckpointFolder(run / "checkpoints"),
        spec.checkpoint,
        spec,
        fingerprint=0,
        train_rows=100,
        event=lambda kind, **details: events.append({"event": kind, **details}),
    )
    uploads = checkpoints._uploads
    assert uploads is not None
    with checkpoints.uploading(lambda: None):
        for place, manifest in checkpoints_of(run):
            uploads.offer(place, manifest)
            while uploads.busy:
                pass
    assert [event["event"] for event in events] == ["checkpoint stored"] * len(checkpoints_of(run))
    second = step_folder(checkpoints_of(run)[1][1].step)
    deleted = files.log.index(("delete", "step-00000005/checkpoint.json"))
    assert files.log.index(("write", f"{second}/checkpoint.json")) < deleted
    assert CheckpointsAtUrl(URL).steps() == [14]


def test_of_several_that_wait_only_the_newest_is_copied_and_an_error_is_told(
    run: Path, files: type[FailingFileSystem]
) -> None:
    events: list[tuple[str, dict[str, Any]]] = []
    files.fails_at = 0
    uploads = CheckpointUploads(
        CheckpointsAtUrl(URL), lambda folder: None, lambda kind, **details: events.append((kind, details))
    )
    place, manifest = checkpoints_of(run)[-1]
    uploads.offer(place, manifest)
    uploads.close(lambda: None)
    ((kind, details),) = events
    assert (kind, details["step"]) == ("checkpoint not saved", 14)
    assert details["cause"].startswith(f"{URL}: ")
    assert "the network is gone" in details["cause"]
    assert uploads.busy == set()


def test_a_run_goes_on_from_a_url_elsewhere_at_another_cut_bitwise_and_passes_over_what_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    to, monkey = f"file://{tmp_path}/store/run", monkeypatch
    monkey.chdir(tmp_path)
    train(tmp_path / "first", job(to))
    events = [json.loads(line) for line in (tmp_path / "first" / "events.jsonl").read_text().splitlines()]
    stored = [event["step"] for event in events if event["event"] == "checkpoint stored"]
    assert stored[-1] == 14, "the last one is copied before the run ends"
    listed = pipetrain_here("checkpoints", "list", to, "--json")
    assert listed.returncode == 0, listed.stderr
    assert {row["step"] for row in json.loads(listed.stdout)} == set(stored)
    assert pipetrain_here("checkpoints", "verify", to).returncode == 0
    assert "step" in pipetrain_here("checkpoints", "inspect", to).stdout
    for place, output in ((to, "a"), (f"{to}/step-00000014", "b"), (tmp_path / "first", "c")):
        done = pipetrain_here("checkpoints", "export", place, "-o", tmp_path / f"{output}.safetensors", "--optimizer")
        assert done.returncode == 0, done.stderr
    assert len({(tmp_path / f"{output}.safetensors").read_bytes() for output in "abc"}) == 1
    newest = tmp_path / "store" / "run" / "step-00000014"
    file = next(newest.glob("layer-*"))
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    assert pipetrain_here("checkpoints", "verify", to).returncode == 1
    more = ["--set", "training.epochs=2", "--stages", "3", "--schedule", "gpipe", "--run-dir", "second"]
    done = pipetrain_here("resume", to, "--local", *more)
    assert done.returncode == 0, done.stderr
    assert f"{to}/step-00000014/{file.name}" in done.stderr
    assert "trying the checkpoint before it" in done.stderr
    assert f"going on after step {sorted(stored)[-2]} of 28" in done.stderr
    train(tmp_path / "whole", job(None, epochs=2))
    assert (tmp_path / "second" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()
    assert not list(tmp_path.glob(".fetched-*"))
    found = newest_whole(CheckpointFolder(tmp_path / "second" / "checkpoints"), print)
    assert found is not None
    assert found[1].step == 28
    assert CheckpointsAtUrl(to).steps()[-1] == 28, "the run that goes on copies its checkpoints to the same URL"


def test_a_url_without_a_whole_checkpoint_changes_nothing_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="failing://bucket/nothing: has no whole checkpoint"):
        fetch_newest("failing://bucket/nothing", tmp_path / "run", print)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", ["runs/x", "http://host/x", "s3://bucket/a::zip://b", 5, "s3://"])
def test_what_is_no_url_of_a_folder_is_refused(to: object) -> None:
    document = job(None).document()
    document["checkpoint"] = {"to": to}
    with pytest.raises(InvalidJob, match=r"checkpoint.to: got .*, must be the URL of a folder, such as s3://BUCKET"):
        parse_job(document)


def test_a_protocol_that_nothing_opens_is_a_mistake_with_its_name() -> None:
    with pytest.raises(UserMistake, match=r"unheard://x/y: cannot be opened: .*unheard"):
        require_target(CheckpointSection(to="unheard://x/y"), FREE, links=True)


def test_a_job_of_the_service_writes_only_where_it_may(tmp_path: Path) -> None:
    remote = SourceRules(tracking_roots=(str(tmp_path / "open"),), public_only=True)
    require_target(CheckpointSection(to="s3://bucket/run"), remote)
    require_target(CheckpointSection(to=f"file://{tmp_path}/open/run"), remote)
    for to in (
        f"file://{tmp_path}/else",
        f"file://{tmp_path}/open/../else",
        "local:///etc",
        "memory://x",
        "sftp://host/x",
    ):
        with pytest.raises(UserMistake, match=r"checkpoint\.to: got "):
            require_target(CheckpointSection(to=to), remote)


def test_results_do_not_depend_on_the_copies(tmp_path: Path) -> None:
    train(tmp_path / "with", job(URL))
    train(tmp_path / "without", job(None))
    assert results(tmp_path / "with") == results(tmp_path / "without")
    assert LOCAL.local
