"""A home: only its user can read it, and one service at a time runs on it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.client.address import find_service
from cluster.service.home import Home, write_private
from stages.errors import NoService, UserMistake
from tests.jobs import pipetrain_here
from tests.other_user import needs_nobody
from tests.small_disk import fill, small_disk


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# files -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_umask")
def test_a_home_is_its_users_alone(tmp_path: Path) -> None:
    home = Home(tmp_path / "some" / "home")
    home.make()
    with home.locked():
        home.write(home.service_file, {"pid": 1})
    home.write(home.ray_file, {"pid": 1})
    assert _mode(home.folder) == 0o700
    assert [_mode(file) for file in (home.token_file, home.service_file, home.ray_file)] == [0o600] * 3
    assert _names(home.folder) == {"runs", "uploads", "logs", "token", "service.json", "service.lock", "ray.json"}


@pytest.mark.usefixtures("_umask")
def test_a_private_file_that_others_could_read_no_longer_can(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    file.chmod(0o644)
    write_private(file, "neü\n")
    assert (file.read_text(encoding="utf-8"), _mode(file), _names(tmp_path)) == ("neü\n", 0o600, {"file"})


def test_a_folder_that_is_there_is_closed_to_others(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    Home(tmp_path).make()
    assert _mode(tmp_path) == 0o700


OTHERS = {
    "a file": ["notes.txt"],
    "a folder of results": ["runs/first/metrics.jsonl"],
    "logs": ["logs/a.log", "runs/first/metrics.jsonl"],
    "another program's token": ["token", "uploads/a"],
    "something beside": ["runs/a", "uploads/a", "logs/a", "pyproject.toml"],
    "hidden": [".git/config"],
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_folder_that_is_something_else_is_not_taken_over(tmp_path: Path, what: str) -> None:
    for name in OTHERS[what]:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("theirs")
    tmp_path.chmod(0o755)
    before = {path: (path.stat().st_mode, path.stat().st_mtime_ns) for path in [tmp_path, *tmp_path.rglob("*")]}
    with pytest.raises(UserMistake, match="is not the home of a service, and is not empty") as refused:
        Home(tmp_path).make()
    assert len(refused.value.problems) == 1
    assert {path: (path.stat().st_mode, path.stat().st_mtime_ns) for path in [tmp_path, *tmp_path.rglob("*")]} == before


HOMES = {
    "empty": [],
    "a new file system": ["lost+found/"],
    "just made": ["runs/", "uploads/", "logs/"],
    "its service was killed at once": ["runs/", "uploads/", "logs/", "service.lock"],
    "used": ["runs/", "uploads/", "logs/", "service.lock", "token", "jobs.sqlite3", "jobs.sqlite3-wal"],
    "its logs were removed": ["runs/", "service.lock", "token", "jobs.sqlite3"],
    "with a note of its user": ["runs/", "uploads/", "logs/", "service.lock", "token", "jobs.sqlite3", "README"],
}


@pytest.mark.parametrize("what", HOMES)
def test_a_home_of_any_age_is_known(tmp_path: Path, what: str) -> None:
    for name in HOMES[what]:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    home = Home(tmp_path)
    home.make()
    home.make()
    assert _mode(tmp_path) == 0o700
    assert home.runs.is_dir()
    assert home.uploads.is_dir()
    assert home.logs.is_dir()


TOKENS = {
    "empty": ("", "is empty"),
    "only space": (" \n\t\n", "is empty"),
    "short": ("0123456789abcdef\n", "has 16 characters"),
    "one less": ("x" * 31, "has 31 characters"),
    "two words": ("x" * 40 + " y", "has 42 characters"),
    "not ASCII": ("ü" * 40, "has 40 characters"),
}


@pytest.mark.parametrize("kind", TOKENS)
def test_a_token_that_anybody_could_guess_is_refused(tmp_path: Path, kind: str) -> None:
    text, found = TOKENS[kind]
    home = Home(tmp_path / "home")
    home.make()
    home.token_file.write_text(text, encoding="utf-8")
    with pytest.raises(UserMistake, match=found) as refused, home.locked():
        pass
    assert str(home.token_file) in refused.value.problems[0]
    assert home.token_file.read_text(encoding="utf-8") == text
    home.token_file.unlink()
    with home.locked():
        assert len(home.token()) == 64


def test_a_token_of_ones_own_is_taken(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.make()
    write_private(home.token_file, "a-secret-of-my-own-from-elsewhere\n")
    with home.locked():
        assert home.token() == "a-secret-of-my-own-from-elsewhere"


def test_the_token_stays_and_no_two_homes_share_one(tmp_path: Path) -> None:
    home, other = Home(tmp_path / "home"), Home(tmp_path / "other")
    for made in (home, other):
        made.make()
        with made.locked():
            pass
    token = home.token()
    (home.run_directory("a-job")).mkdir()
    home.make()
    with home.locked():
        pass
    assert home.token() == token != other.token()
    assert len(bytes.fromhex(token)) == 32
    assert home.run_directory("a-job").exists()


@needs_nobody
def test_a_folder_of_another_user_is_no_home(tmp_path: Path) -> None:
    """The folder's owner could make it readable again, and replace the token."""
    folder = tmp_path / "planted"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    with pytest.raises(UserMistake, match=r"planted: belongs to another user \(id 65534\)"):
        Home(folder).make()
    assert _names(folder) == set()


@needs_nobody
def test_what_stands_in_another_users_folder_is_no_order_to_us(tmp_path: Path) -> None:
    """`down` would end the processes that its ray.json names, and remove the folder."""
    folder = tmp_path / "planted"
    folder.mkdir()
    victim = Path(tempfile.mkdtemp(prefix="pipetrain-1-", dir=tmp_path))
    with subprocess.Popen(["sleep", "1000"], cwd=victim, start_new_session=True) as process:
        try:
            head = {"session": process.pid, "address": "a:1", "token": "t", "folder": str(victim), "cpus": 1}
            Home.write(folder / "ray.json", head)
            os.chown(folder, 65534, 65534)
            done = pipetrain_here("down", "--home", folder)
            assert (done.returncode, done.stderr.count("\n")) == (2, 1)
            assert "belongs to another user (id 65534)" in done.stderr
            assert process.poll() is None
            assert victim.exists()
        finally:
            process.kill()


@needs_nobody
def test_nothing_is_sent_to_the_service_that_another_users_folder_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "planted"
    with _holder_of(folder) as home:
        Home.write(home.service_file, {"grpc": "127.0.0.1:7", "http": "127.0.0.1:8"})
        assert find_service(home=folder).target == "127.0.0.1:7"
        os.chown(folder, 65534, 65534)
        assert find_service(home=folder).target == "127.0.0.1:7", "root may read the folders of all users"
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(NoService, match=r"planted: belongs to another user \(id 65534\), who would receive"):
            find_service(home=folder)


@contextmanager
def _holder_of(folder: Path) -> Iterator[Home]:
    home = Home(folder)
    home.make()
    with home.locked():
        yield home


@pytest.mark.parametrize("name", ["token", "service.json", "ray.json"])
@pytest.mark.parametrize("kind", ["fifo", "folder", "large"])
def test_a_file_of_another_kind_holds_nobody_up(tmp_path: Path, name: str, kind: str) -> None:
    home = Home(tmp_path)
    home.make()
    file = tmp_path / name
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.write_bytes(b" " * 2**20)
    assert Home.read(file) is None
    home.token_file = file
    with pytest.raises(UserMistake, match=f"{name}: cannot be read"):
        home.token()


def test_a_home_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserMistake, match="cannot be used: Not a directory") as refused:
        Home(tmp_path / "file" / "home").make()
    assert len(refused.value.problems) == 1


def test_json_files_are_read_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    assert Home.read(file) is None
    content = {"grpc": "127.0.0.1:7070", "pid": 7, "home": "/ü"}
    Home.write(file, content)
    assert Home.read(file) == content
    for broken in (b"", b"{", b"[]", b"1", b"\xff"):
        file.write_bytes(broken)
        assert Home.read(file) is None


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    Home.write(file, {"pid": 1})
    with pytest.raises(TypeError):
        Home.write(file, {"pid": object()})
    with pytest.raises(UnicodeEncodeError):
        write_private(file, "\ud800")
    assert Home.read(file) == {"pid": 1}


def test_a_write_without_room_leaves_no_part(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        fill(disk)
        with pytest.raises(OSError, match="No space left"):
            write_private(disk / "file.json", "x" * 10_000)
        assert _names(disk) == {"filler"}


# the lock ----------------------------------------------------------------------------------------------------------

_HOLDER = """
import subprocess, sys
from pathlib import Path
from cluster.service.home import Home

with Home(Path(sys.argv[1])).locked():
    child = subprocess.Popen(["sleep", "1000"])  # as Ray's processes outlive their service
    print(child.pid, flush=True)
    sys.stdin.read()
"""


@contextmanager
def _holder(home: Home) -> Iterator[subprocess.Popen[str]]:
    """Start a process that holds the lock of a home until its input is closed, and a child that outlives it."""
    command = [sys.executable, "-c", _HOLDER, str(home.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        child = 0
        try:
            assert process.stdout is not None
            child = int(process.stdout.readline())
            yield process
        finally:
            process.kill()
            if child:
                os.kill(child, signal.SIGKILL)


def test_one_at_a_time_holds_the_lock(home: Home) -> None:
    again = Home(home.folder)
    assert not home.is_locked()
    with home.locked():
        assert again.is_locked()
        with pytest.raises(UserMistake, match="a service is starting or ending at"), again.locked():
            pass
        assert again.is_locked()  # the failed attempt has not unlocked it
    assert not home.is_locked()
    with pytest.raises(ZeroDivisionError), home.locked():
        _ = 1 / 0
    with again.locked():
        assert home.is_locked()


def test_a_home_that_is_not_there_is_not_locked(tmp_path: Path) -> None:
    assert not Home(tmp_path / "none").is_locked()
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("end", ["SIGKILL", "SIGTERM", "its end"])
def test_the_lock_ends_with_its_process(home: Home, end: str) -> None:
    home.write(home.service_file, {"grpc": "127.0.0.1:7", "http": "127.0.0.1:8", "pid": 9})
    with _holder(home) as process:
        assert home.is_locked()
        with pytest.raises(UserMistake) as refused, home.locked():
            pass
        assert refused.value.problems == (
            f"the service of {home.folder} is up: gRPC 127.0.0.1:7, HTTP 127.0.0.1:8, process {process.pid}",
        )
        if end == "its end":
            assert process.stdin is not None
            process.stdin.close()
        else:
            process.send_signal(getattr(signal, end))
        process.wait(10)
        assert not home.is_locked()
        with home.locked():
            assert home.is_locked()
