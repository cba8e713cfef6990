"""Ray's head, as a later service finds it by what ray.json says."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.actors.host_processes import in_session
from cluster.service.home import Home
from cluster.service.ray_head import RayHead
from tests.other_user import needs_nobody


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
    """After the machine was started anew, say."""
    with _sleeping("/") as process:
        head = _head(process.pid, tmp_path / "ray")
        assert not head.alive()
        assert head.end(home)
        assert in_session(process.pid) == [process.pid]


@needs_nobody
def test_another_user_cannot_pass_for_the_head(home: Home) -> None:
    """Who gets its number, and waits at its address, would be shown its token."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        with _sleeping(folder, user=65534) as process:
            assert not _head(process.pid, Path(folder)).alive()
