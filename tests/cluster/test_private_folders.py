"""Temporary folders: closed to other users, and removed after their process ended in any way."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.actors import ray_session
from cluster.actors.host_processes import started_at
from cluster.actors.private_folders import make_private_folder, private_folder, short_base, sweep_leftovers
from cluster.actors.ray_session import RAY_FOLDER
from stages.errors import NotEnoughResources
from tests.other_user import needs_nobody, what_nobody_can_do

LONG_AGO = 1_000_000_000.0
_OWNER = """
import os, sys
from cluster.actors.private_folders import make_private_folder

folder = make_private_folder(sys.argv[1])
(folder.path / "ray").mkdir()
(folder.path / "ray" / "log").write_text("secret")
print(folder.path, flush=True)
sys.stdin.read()
"""


@contextmanager
def _owner(base: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Start a process that makes a folder and then waits."""
    command = [sys.executable, "-c", _OWNER, str(base)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def _old(path: Path, changed: float) -> Path:
    """Make a folder as earlier versions did, writable for everybody because of Ray."""
    path.mkdir()
    (path / "session_latest").symlink_to("/nowhere")
    path.chmod(0o777)
    os.utime(path, (changed, changed))
    return path


def test_a_folder_is_removed_when_its_owner_was_killed_and_not_before(tmp_path: Path) -> None:
    with _owner(tmp_path) as (process, folder):
        assert (folder / "ray" / "log").exists()
        sweep_leftovers(str(tmp_path))
        assert (folder / "ray" / "log").exists()
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie until it is waited for
        sweep_leftovers(str(tmp_path))
        assert not folder.exists()


def test_a_process_that_has_the_number_of_the_killed_one_does_not_keep_its_folder(tmp_path: Path) -> None:
    """The id in the name once decided; in a container, process ids are always the same few."""
    with _owner(tmp_path) as (process, folder):
        process.kill()
        process.wait()
        again = folder.rename(tmp_path / f"pipetrain-{os.getpid()}-abcdefgh")
    sweep_leftovers(str(tmp_path))
    assert not again.exists()


def test_a_child_that_was_given_the_lock_keeps_the_folder(tmp_path: Path) -> None:
    """Ray's head, which outlives the service that started it, is such a child."""
    folder = make_private_folder(str(tmp_path))
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=(folder.lock,)) as child:
        folder.let_go()
        sweep_leftovers(str(tmp_path))
        assert folder.path.exists()
        child.kill()
    sweep_leftovers(str(tmp_path))
    assert not folder.path.exists()


def test_a_folder_goes_at_the_end_of_its_block(tmp_path: Path) -> None:
    with private_folder(str(tmp_path)) as path:
        (path / "file").touch()
    assert not list(tmp_path.iterdir())
    with pytest.raises(ZeroDivisionError), private_folder(str(tmp_path)):
        _ = 1 / 0
    assert not list(tmp_path.iterdir())


def test_what_earlier_versions_left_is_removed_and_what_they_use_is_not(tmp_path: Path) -> None:
    me, dead = os.getpid(), subprocess.Popen(["true"])
    dead.wait()
    now = time.time()
    gone = [
        _old(tmp_path / f"pipetrain-{dead.pid}-aaaaaaaa", now),
        _old(tmp_path / f"pipetrain-{me}-bbbbbbbb", LONG_AGO),  # changed last before this process began
        _old(tmp_path / "pipetrain-ray-cccccccc", LONG_AGO),
    ]
    kept = [
        _old(tmp_path / f"pipetrain-{me}-dddddddd", now),
        _old(tmp_path / "pipetrain-ray-eeeeeeee", LONG_AGO),
        _old(tmp_path / "pipetrain-ray-ffffffff", now),  # another process may just be making it
        _old(tmp_path / "pipetrain-service-gggggggg", LONG_AGO),  # not a name of ours
        _old(tmp_path / "other-1-hhhhhhhh", LONG_AGO),
    ]
    follow = ["tail", "-f", "/dev/null", "--", str(kept[1] / "log")]
    with subprocess.Popen(follow, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as raylet:
        try:
            assert raylet.stdout is not None
            assert raylet.stdout.readline(), "it runs: only then does the kernel tell its arguments"
            sweep_leftovers(str(tmp_path))
        finally:
            raylet.kill()
    assert [path.name for path in gone if path.exists()] == []
    assert [path.name for path in kept if not path.exists()] == []


def test_a_sweep_follows_no_link(tmp_path: Path) -> None:
    base, precious = tmp_path / "base", tmp_path / "precious"
    base.mkdir()
    precious.mkdir()
    (precious / "file").write_text("kept")
    (base / "pipetrain-ray-aaaaaaaa").symlink_to(precious)
    (base / "pipetrain-1-bbbbbbbb").symlink_to(precious / "file")
    inside = make_private_folder(str(base))
    (inside.path / "link").symlink_to(precious)
    inside.let_go()
    sweep_leftovers(str(base))
    assert (precious / "file").read_text() == "kept"
    assert {path.name for path in base.iterdir()} == {"pipetrain-ray-aaaaaaaa", "pipetrain-1-bbbbbbbb"}


@needs_nobody
def test_a_sweep_leaves_what_belongs_to_another_user(tmp_path: Path) -> None:
    theirs = _old(tmp_path / "pipetrain-ray-aaaaaaaa", LONG_AGO)
    os.chown(theirs, 65534, 65534)
    fifo = tmp_path / "pipetrain-1-bbbbbbbb"
    os.mkfifo(fifo)
    sweep_leftovers(str(tmp_path))  # it does not hang either
    assert theirs.exists()
    assert fifo.exists()


@needs_nobody
def test_another_user_can_do_nothing_to_a_folder_that_was_opened_inside() -> None:
    with private_folder("/tmp") as path:
        ray = path / RAY_FOLDER
        ray.mkdir()
        ray.chmod(0o777)  # as Ray does
        (ray / "log").write_text("secret")
        (ray / "log").chmod(0o666)
        assert what_nobody_can_do(path) == []
        path.chmod(0o777)  # the test would see it
        assert any("log" in line for line in what_nobody_can_do(path))


@pytest.mark.parametrize("base", ["/tmp", "/var/tmp", "/" + "x" * 9, "/" + "x" * 10, "/" + "x" * 90])
def test_sockets_of_ray_have_room(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", base)
    session = "session_2026-11-25_19-48-45_580860_4194304"
    path = f"{short_base()}/pipetrain-4194304-abcdefgh/{RAY_FOLDER}/{session}/sockets/plasma_store"
    assert len(path) < 107


def test_when_a_process_was_started() -> None:
    before = time.time()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        began = started_at(process.pid)
        assert began is not None
        assert abs(began - before) < 30  # on a busy machine; this process started longer ago
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert started_at(process.pid) is None, "a zombie"
    assert started_at(process.pid) is None


def test_a_start_that_ray_gives_up_is_told_in_one_line_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray raises a bare Exception if its start takes too long. It once reached users as a traceback."""

    class SlowRay:
        def init(self, **options: object) -> None:
            raise Exception("The current node timed out during startup.\nSome of its processes may have failed.")

        def shutdown(self) -> None: ...

    monkeypatch.setitem(sys.modules, "ray", SlowRay())
    monkeypatch.setattr(ray_session, "loopback", contextlib.nullcontext)
    for patch in ("without_idlers", "in_own_groups"):  # of Ray's own modules
        monkeypatch.setattr(ray_session, patch, contextlib.nullcontext)
    monkeypatch.setattr(ray_session, "short_base", lambda: str(tmp_path))
    with pytest.raises(NotEnoughResources) as caught, ray_session.ray_session(None, cpus=1, memory=2**30):
        pass
    assert str(caught.value).startswith("Ray cannot start here: The current node timed out during startup. Some of ")
    assert not list(tmp_path.iterdir())
