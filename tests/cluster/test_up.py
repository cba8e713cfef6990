"""`pipetrain up` reports a service as up only if it is."""

from __future__ import annotations

import asyncio
import errno
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.cli import up as module
from cluster.service import __main__ as service
from cluster.service.home import Home
from stages.errors import NotEnoughResources, UserMistake
from tests.jobs import pipetrain_here
from tests.small_disk import fill, small_disk


def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Any:
    """Wait for a service whose process is this shell script."""
    home = Home(tmp_path / "home")
    home.make()
    Home.write(home.service_file, {"http": "127.0.0.1:1", "grpc": "127.0.0.1:2"})
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(fake))
    return module._start(home, [])


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo ready; exit 0", r"the service ended at once \(code 0\); .*service.log says why"),
        ("echo 'error: the service was ended while it was starting'; exit 2", "was ended while it was starting$"),
        ("kill -9 $$", r"the service ended at once \(SIGKILL\); .*service.log says why"),
    ],
)
def test_a_service_that_has_ended_is_not_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], script: str, says: str
) -> None:
    with pytest.raises(UserMistake, match=says):
        start(tmp_path, monkeypatch, script)
    assert "up:" not in capsys.readouterr().err


def test_a_start_that_is_stopped_does_not_hold_the_command_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that ignores SIGTERM is killed after its grace period. `up` once waited for ever."""
    monkeypatch.setattr(module, "_START_TIMEOUT_S", 0.2)
    monkeypatch.setattr("cluster.cli.down.TERM_S", 0.2)
    pid = tmp_path / "pid"
    with pytest.raises(NotEnoughResources, match=r"the service is not ready after 0.2 s"):
        start(tmp_path, monkeypatch, f"trap '' TERM; echo $$ > {pid}; exec sleep 1000")
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()


def test_down_ends_a_service_whose_home_was_moved(tmp_path: Path) -> None:
    """`down` once reported that nothing is up, while the service and its Ray went on."""
    home = Home(tmp_path / "home")
    home.make()
    script = "import time; print(1, flush=True); time.sleep(1000)"
    command = [sys.executable, "-c", script, "-m", "cluster.service", "--home", str(home.folder), "--grpc-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as service:
        try:
            assert service.stdout is not None
            service.stdout.readline()
            home.folder.rename(tmp_path / "moved")
            reaper = threading.Thread(target=service.wait)
            reaper.start()
            assert pipetrain_here("down", "--home", home.folder).stderr == "down\n"
            reaper.join(10)
            assert service.returncode == -signal.SIGTERM
        finally:
            service.kill()
    assert pipetrain_here("down", "--home", home.folder).stderr == f"nothing is up at {home.folder}\n"


READ_ONLY = OSError(errno.EROFS, "Read-only file system", "/home/\x1b[2Jx")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (READ_ONLY, "failed: read-only file system: /home/\\x1b[2Jx\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "failed: permission denied: /x\n"),
        (OSError(errno.EIO, "Input/output error"), "failed: input/output error: the output\n"),
    ],
)
def test_what_the_machine_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch, error: OSError, says: str) -> None:
    def refuse(home: Any) -> None:
        raise error

    monkeypatch.setattr("cluster.cli.down.end_service", refuse)
    done = pipetrain_here("down", "--home", "/nowhere")
    assert (done.returncode, done.stderr) == (1, says)


def test_a_service_that_is_ended_while_it_starts_says_so() -> None:
    async def play() -> None:
        ended, never = asyncio.Event(), asyncio.Event()
        keeper: Any = SimpleNamespace(up=never, failed=None)
        servers: Any = SimpleNamespace(http_up=never)
        web: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(ended.set)
        await service._first(ended, keeper, servers, web)

    with pytest.raises(UserMistake, match="the service was ended while it was starting"):
        asyncio.run(play())


def test_a_service_whose_disk_is_full_says_so_though_its_log_cannot(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "256k") as disk:
        home = Home(disk / "home")
        home.make()
        fill(disk)
        with pytest.raises(UserMistake, match=r"^.*disk/home.*: no space left on device$"):
            module._start(home, ["--home", str(home.folder)])
