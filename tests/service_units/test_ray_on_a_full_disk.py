"""Ray's files and processes on a full disk: what is started and reported, and that nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.actors.ray_session import ray_session
from cluster.actors.ray_watch import cause_of_death
from cluster.service.home import Home
from cluster.service.ray_head import RayHead
from cluster.service.ray_keeper import RayKeeper
from stages.errors import NotEnoughResources
from tests.small_disk import fill, small_disk


def _play_head(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace Ray's head by a process that prints nothing; return the file that gets its process id."""
    fake, pid = folder / "python", folder / "pid"
    fake.write_text(f"#!/bin/sh\necho $$ > {pid}.part; mv {pid}.part {pid}; exec sleep 60\n")
    fake.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(fake))
    return pid


def test_nothing_is_launched_while_ray_has_no_room_for_its_files(home: Home) -> None:
    with small_disk(home.folder / "disk") as disk:
        keeper, written = RayKeeper(home, cpus=1, address=None), bytearray()
        stdin: Any = SimpleNamespace(is_closing=lambda: False, write=written.extend)
        keeper._agent = SimpleNamespace(stdin=stdin)  # type: ignore[assignment]
        keeper._head = RayHead(session=1, address="", token="", folder=str(disk), cpus=1)
        filler = fill(disk)
        with pytest.raises(OSError, match="No space left on device"):
            keeper.send({"do": "launch"})
        keeper.send({"do": "end"})
        filler.unlink()
        keeper.send({"do": "launch"})
        assert written == b'{"do": "end"}\n{"do": "launch"}\n'


def test_a_head_that_cannot_be_noted_is_ended(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No service would know of it, and each new try would leave another one."""
    pid = _play_head(tmp_path, monkeypatch)

    def full(file: Path, content: Any) -> None:
        while not pid.exists():
            time.sleep(0.01)
        raise OSError(28, "No space left on device", str(file))

    monkeypatch.setattr(home, "write", full)
    with pytest.raises(NotEnoughResources, match=r"^Ray cannot start here: no space left on device: .*ray.json$"):
        RayHead.start(home, 1)
    assert not Path(f"/proc/{pid.read_text().strip()}").exists()


def test_an_embedded_ray_without_room_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise Exception("The current node timed out during startup.")  # as Ray does

    # a fake: the real module keeps the authentication mode of its import for the whole process
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init, shutdown=lambda: None))
    for patch in ("loopback", "without_idlers", "in_own_groups"):  # these import parts of Ray
        monkeypatch.setattr(f"cluster.actors.ray_session.{patch}", contextlib.nullcontext)
    with small_disk(tmp_path / "disk") as disk:
        monkeypatch.setattr("cluster.actors.ray_session.short_base", lambda: str(disk))
        with pytest.raises(NotEnoughResources, match="cannot start here: The current node timed out"):
            ray_session(None, cpus=1, memory=1).__enter__()
        filler = fill(disk)
        os.truncate(filler, filler.stat().st_size - 2**19)  # room for a folder, and little more
        with pytest.raises(NotEnoughResources, match=r"^Ray cannot start here: no space left on device: .*Ray keeps"):
            ray_session(None, cpus=1, memory=1).__enter__()


def test_a_worker_that_died_for_lack_of_room_is_told_so() -> None:
    error, full = RuntimeError("died"), "no space left on device: /tmp/r, where Ray keeps its files"
    assert cause_of_death(error, full) == f"its process ended unexpectedly; {full}"
    assert cause_of_death(error, "").startswith("its process ended unexpectedly: killed from outside")
