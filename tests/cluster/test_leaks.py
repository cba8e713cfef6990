"""What a run may leave behind is seen: each thing is left here on purpose."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.chaos.leaks import Held, leaks

PID = 2**22 + 1  # no process has it


@contextlib.contextmanager
def _process(*arguments: str) -> Iterator[int]:
    code = "print('ready', flush=True); import time; time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def test_nothing_is_found_if_nothing_is_left(tmp_path: Path) -> None:
    assert leaks(Held.now(), {PID}, tmp_path) == []


def test_processes_are_found(tmp_path: Path) -> None:
    before = Held.now()
    with _process("ray::PipetrainWorker.run") as worker, _process() as other:
        found = leaks(before, {worker}, tmp_path, patience=0)
    assert found[0] == f"process {worker} of a worker is still there"
    assert found[1].startswith(f"process {other} is still there: {sys.executable}")
    assert len(found) == 2


def test_sockets_and_memory_are_found(tmp_path: Path) -> None:
    before = Held.now()
    memory = os.memfd_create("pipetrain-link")
    with socket.socket():
        found = leaks(before, (), tmp_path, patience=0)
    os.close(memory)
    assert found == [
        "this process has 1 sockets more than after the undisturbed run",
        "this process has 1 more pieces of memory of links",
    ]


def test_folders_and_sockets_of_workers_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"pipetrain-{PID}-ab"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(folder / "inbox"))
        found = leaks(Held.now(), {PID}, tmp_path / "run", patience=0)
    assert found == [f"{folder} is left", f"a socket at {folder}/inbox is left"]


def test_shared_memory_with_a_name_is_found(tmp_path: Path) -> None:
    before = Held.now()
    path = Path(f"/dev/shm/pipetrain-test-{os.getpid()}")
    path.write_bytes(b"x")
    try:
        found = leaks(before, (), tmp_path, patience=0)
    finally:
        path.unlink()
    assert f"{path} is left" in found


def test_what_goes_away_a_moment_later_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / f"pipetrain-{PID}-ab").mkdir()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / f"pipetrain-{PID}-ab" / "link"))
        (tmp_path / f"pipetrain-{PID}-ab" / "link").unlink()
        (tmp_path / f"pipetrain-{PID}-ab").rmdir()
        assert leaks(Held.now(), {PID}, tmp_path / "run", patience=0) != [], "it is still open"
        closing = threading.Timer(0.2, bound.close)
        closing.start()
        assert leaks(Held.now(), {PID}, tmp_path / "run") == []
        closing.join()
