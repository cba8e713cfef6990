"""Ending processes of this host: all processes of a session in any state, and no others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import pytest

from cluster.actors.host_processes import (
    boot_moment,
    command_line,
    end_ray_process,
    end_session,
    existed_at,
    in_session,
    own_process_with,
)
from cluster.actors.worker_process import ACTOR_NAME as WORKER_NAME
from cluster.run.job_runner import ACTOR_NAME as RUNNER_NAME

# Prints a word and a process id for each process that it starts. `exec` gives the sleeping processes these ids.
_TREE = """
trap '' TERM HUP INT
sleep 1000 & echo child $!
( sleep 1000 & echo orphan $! )
sh -c 'sleep 1000 & echo grandchild $!; wait' & echo parent $!
sh -c 'kill -STOP $$; exec sleep 1000' & echo stopped $!
sh -c 'sleep 1000 & echo "below a stopped one" $!; kill -STOP $$; wait' & echo "stopped parent" $!
wait
"""
_NAMES = {"child", "orphan", "grandchild", "parent", "stopped", "below a stopped one", "stopped parent"}


def _until(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.005)


def _status(pid: int) -> str:
    """Return the state of a process from the kernel; that of a zombie if it does not exist."""
    try:
        return str(psutil.Process(pid).status())
    except psutil.NoSuchProcess:
        return str(psutil.STATUS_ZOMBIE)


def _lives(pid: int) -> bool:
    return _status(pid) not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


def _until_stopped(pid: int) -> None:
    _until(lambda: _status(pid) == psutil.STATUS_STOPPED, f"process {pid} is {_status(pid)}, never stopped")


@contextmanager
def _tree() -> Iterator[tuple[subprocess.Popen[str], dict[str, int]]]:
    """Start a session with children of all kinds; return its leader, and the others by kind."""
    leader = subprocess.Popen(["sh", "-c", _TREE], stdout=subprocess.PIPE, text=True, start_new_session=True)
    found: dict[str, int] = {}
    try:
        assert leader.stdout is not None
        while len(found) < len(_NAMES):
            name, _, number = leader.stdout.readline().rpartition(" ")
            assert name in _NAMES
            found[name] = int(number)
        for name in ("stopped", "stopped parent"):
            _until_stopped(found[name])
        yield leader, found
    finally:
        for pid in [leader.pid, *found.values()]:
            if _lives(pid):
                os.kill(pid, signal.SIGKILL)
        leader.wait(10)
        assert leader.stdout is not None
        leader.stdout.close()


@contextmanager
def _sleeper(name: str = "sleep", **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process with this name."""
    process = subprocess.Popen([name, "1000"], executable="/bin/sleep", **options)
    try:
        _until(lambda: command_line(process.pid).startswith(name.encode()), "never took its name")
        yield process
    finally:
        process.kill()
        process.wait(10)


def _say_go(process: subprocess.Popen[str]) -> int:
    """Let a process go on; return the process id that it prints."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    return int(process.stdout.readline())


# sessions ----------------------------------------------------------------------------------------------------------


def test_a_session_ends_with_all_that_is_in_it() -> None:
    with _tree() as (leader, found), _tree() as (other, others), _sleeper() as ours:
        assert set(in_session(leader.pid)) == {leader.pid, *found.values()}
        leader.send_signal(signal.SIGTERM)  # which it ignores
        assert end_session(leader.pid)
        assert in_session(leader.pid) == []
        assert [name for name, pid in found.items() if _lives(pid)] == []
        assert leader.wait(10) == -signal.SIGKILL
        assert set(in_session(other.pid)) == {other.pid, *others.values()}  # other sessions go on
        assert _lives(ours.pid)
        assert end_session(leader.pid)  # a second call has nothing to do


def test_a_session_ends_that_its_leader_has_left() -> None:
    with _tree() as (leader, found):
        leader.kill()
        leader.wait(10)
        assert set(in_session(leader.pid)) == set(found.values())
        assert end_session(leader.pid)
        assert [name for name, pid in found.items() if _lives(pid)] == []


def test_a_process_that_was_started_meanwhile_ends_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    command, pipe = ["sh", "-c", "read go; sleep 1000 & echo $!; wait"], subprocess.PIPE
    kill, late = os.kill, list[int]()
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True) as leader:

        def start_another_and_kill(pid: int, number: int) -> None:
            if not late:
                late.append(_say_go(leader))
            kill(pid, number)

        try:
            with monkeypatch.context() as patch:
                patch.setattr(os, "kill", start_another_and_kill)
                assert end_session(leader.pid)
            assert [_lives(pid) for pid in late] == [False]
        finally:
            for pid in (leader.pid, *late):
                if _lives(pid):
                    kill(pid, signal.SIGKILL)


def test_what_does_not_die_in_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with _sleeper(start_new_session=True) as process:
        with monkeypatch.context() as patch:
            patch.setattr(os, "kill", lambda pid, number: None)  # as for one in an uninterruptible sleep
            assert not end_session(process.pid, within_s=0.0)
            assert _lives(process.pid)
        assert end_session(process.pid)


def test_a_session_that_is_no_more_has_ended() -> None:
    with subprocess.Popen(["true"], start_new_session=True) as process:
        process.wait(10)
    assert in_session(process.pid) == []
    assert end_session(process.pid, within_s=0.0)


# processes of Ray --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("actor", [WORKER_NAME, RUNNER_NAME])
@pytest.mark.parametrize("method", ["", ".run"])
def test_the_process_of_an_actor_is_ended(actor: str, method: str, stopped: bool) -> None:
    with _sleeper(f"ray::{actor}{method}") as process:
        if stopped:
            process.send_signal(signal.SIGSTOP)
            _until_stopped(process.pid)
        end_ray_process(process.pid, actor)
        assert process.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize(
    "name", ["sleep", "ray::IDLE", f"ray::{WORKER_NAME}.step", "ray::Another.run", RUNNER_NAME, "raylet", "ray::"]
)
def test_a_process_that_got_its_number_is_left_alone(name: str) -> None:
    with _sleeper(name) as process:
        end_ray_process(process.pid, RUNNER_NAME)
        # an earlier signal would arrive before this one
        process.send_signal(signal.SIGSTOP)
        _until_stopped(process.pid)


def test_a_process_is_told_from_a_later_one_with_its_number() -> None:
    before = boot_moment()
    with _sleeper("sleep") as process:
        _until(lambda: boot_moment()["uptime"] > before["uptime"] + 0.05, "time stands still")
        now = boot_moment()
        assert existed_at(process.pid, now)
        assert not existed_at(process.pid, {**before, "uptime": before["uptime"] - 1}), "it began after that"
        assert not existed_at(process.pid, {**now, "boot": "another"}), "before a reboot"
        assert existed_at(process.pid, {}), "an older version did not note the moment"
    assert not existed_at(process.pid, now)


def test_a_number_that_nobody_has_is_no_error() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait(10)
    end_ray_process(process.pid, RUNNER_NAME)
    assert command_line(process.pid) == b""
    assert command_line(os.getpid()).split(b"\0")[0] == psutil.Process().cmdline()[0].encode()


_PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
print(child.pid, flush=True)
child.wait()
"""
_CHILD = """
import os, signal
from cluster.actors.host_processes import end_with_parent
end_with_parent()
os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_a_process_that_is_stopped_ends_with_its_parent() -> None:
    """The Ray agent of a killed service once stayed for ever."""
    with subprocess.Popen([sys.executable, "-c", _PARENT, _CHILD], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            _until_stopped(child)
            parent.kill()
            parent.wait()
            _until(lambda: not _lives(child), "it lives on")
        finally:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def test_a_process_is_found_by_its_arguments_if_it_is_ours() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)", "--home", "/a b"]) as process:
        try:
            _until(lambda: own_process_with("--home", "/a b") == process.pid, "it is not found")
            assert own_process_with("--home", "/a") is None
        finally:
            process.kill()
