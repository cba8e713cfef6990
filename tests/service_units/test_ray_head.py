"""The Ray head that a later service finds by ray.json."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.actors.host_processes import in_session
from cluster.actors.private_folders import make_private_folder
from cluster.service.home import Home
from cluster.service.ray_head import RayHead
from stages.errors import NotEnoughResources
from tests.other_user import needs_nobody
from tests.small_disk import small_disk


@contextmanager
def _sleeping(folder: str | Path, user: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "1000"], cwd=folder, user=user, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _head(session: int, folder: Path, address: str = "127.0.0.1:1") -> RayHead:
    return RayHead(session=session, address=address, token="t", folder=str(folder), cpus=1)


def test_a_head_is_known_by_its_folder_and_ended(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "ray"
    folder.mkdir()
    with _sleeping(folder) as process:
        head = _head(process.pid, folder)
        assert head.alive()
        assert not _head(process.pid, folder, address="").alive(), "it did not come up"
        folder.rmdir()
        assert head.alive()
        assert head.end(home)
        assert not head.alive()


def test_a_session_of_something_else_with_its_number_is_left_alone(home: Home, tmp_path: Path) -> None:
    """Such as after a reboot of the machine."""
    with _sleeping("/") as process:
        head = _head(process.pid, tmp_path / "ray")
        assert not head.alive()
        assert head.end(home)
        assert in_session(process.pid) == [process.pid]


@needs_nobody
def test_another_user_cannot_pass_for_the_head(home: Home) -> None:
    """A process with the head's id that listens at its address would get the token."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        with _sleeping(folder, user=65534) as process:
            assert not _head(process.pid, Path(folder)).alive()


@pytest.mark.parametrize(
    "damage",
    [
        {"folder": "/"},
        {"folder": "pipetrain-1-abc"},
        {"folder": "/tmp/theirs"},
        {"session": "1"},
        {"cpus": None},
        {"x": 1},
    ],
)
def test_a_note_that_is_damaged_leads_to_no_head(home: Home, damage: dict[str, object]) -> None:
    """A wrong head's processes would be ended, and any folder in the file removed."""
    note = {"session": 1, "address": "a:1", "token": "t", "folder": "/tmp/pipetrain-1-abc", "cpus": 1}
    home.write(home.ray_file, note)
    assert RayHead.left_by_another(home) == RayHead(
        session=1, address="a:1", token="t", folder="/tmp/pipetrain-1-abc", cpus=1
    )
    home.write(home.ray_file, note | damage)
    assert RayHead.left_by_another(home) is None


def test_a_head_whose_service_is_killed_before_it_was_noted_does_not_begin() -> None:
    """No service would find it again, so it would stay for ever."""
    command = [sys.executable, "-m", "cluster.service.ray_head", "start", "--head", "--no-such-option"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=100)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_head_begins_when_it_was_noted(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, began = tmp_path / "python", tmp_path / "began"
    fake.write_text(f"#!/bin/sh\nread word && cp {home.ray_file} {began}\necho as told >&2\n")
    fake.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(fake))
    with pytest.raises(NotEnoughResources, match=r"^Ray cannot start here: as told \(all of it is in .*ray-head.log\)"):
        RayHead.start(home, 1)
    assert json.loads(began.read_text())["address"] == "", "ray.json was written before"


@pytest.mark.parametrize("where", ["its folder", "its log"])
def test_a_ray_for_which_there_is_no_room_for_one_more_file_says_so_and_leaves_nothing(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    disk = home.logs if where == "its log" else tmp_path / "disk"
    with small_disk(disk, "1m,nr_inodes=2"):
        base = tmp_path if where == "its log" else disk
        monkeypatch.setattr("cluster.service.ray_head.short_base", lambda: str(base))
        (disk / "filler").touch()
        with pytest.raises(NotEnoughResources, match=r"^Ray cannot start here: no space left on device: /"):
            RayHead.start(home, 1)
        assert list(base.glob("pipetrain-*")) == []


def test_a_folder_in_which_there_is_no_room_for_the_lock_does_not_stay(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m,nr_inodes=2") as disk:
        with pytest.raises(OSError, match="No space left"):
            make_private_folder(str(disk))
        assert list(disk.iterdir()) == []
