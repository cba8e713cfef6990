"""`pipetrain down`: stop what `pipetrain up` started."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any, cast

import click

from coordinator.texts import counted
from stages.errors import JobFailed

TERM_S = 45.0
"""How long a service may take to end in good order, in seconds."""
_HOLDER_S = 2.0


@click.command()
@click.option("--home", type=click.Path(path_type=Path), envvar="PIPETRAIN_HOME", help="~/.pipetrain by default.")
def down(home: Path | None) -> int:
    """Stop the service and its local Ray, with all their processes.

    Jobs that wait stay in the queue, and jobs that run are started again at the next `pipetrain up`. To keep what a job
    has reached, stop it first.
    """
    from cluster.client.address import command_for
    from cluster.service.home import DEFAULT_HOME, Home

    place = Home(home or Path(DEFAULT_HOME))
    place.require_own()
    was_up = end_service(place)
    click.echo("down" if was_up else f"nothing is up at {place.folder}", err=True)
    left = _unfinished(place)
    if left:
        click.echo(f"at the next `{command_for(place.folder, 'up')}`: {left}", err=True)
    return 0


def end_service(home: Any) -> bool:
    """End the service's process, then Ray where it left one. True where there was anything. Raises JobFailed."""
    from cluster.actors.host_processes import command_line, own_process_with
    from cluster.service.ray_head import RayHead

    there, pid = home.is_locked(), home.holder()
    if not there:  # one whose home was moved or deleted holds a lock that is not here any more
        pid = own_process_with("cluster.service", "--home", str(home.folder))
        there = pid is not None
    if there and pid is None and (pid := _wait_for_holder(home)) is None and home.is_locked():
        raise JobFailed(f"a process holds {home.folder / 'service.lock'}, but its number is not in it; end it yourself")
    if pid is not None and b"cluster.service" in command_line(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        if not _gone(home, pid, TERM_S):
            os.kill(pid, signal.SIGKILL)
            if not _gone(home, pid, 5.0):
                raise JobFailed(f"the service's process {pid} does not end")
    with contextlib.suppress(OSError):  # a disk that became read-only must not keep Ray from its end
        home.service_file.unlink(missing_ok=True)
    head = RayHead.left_by_another(home)
    if head is not None and not head.end(home):
        raise JobFailed(f"some of Ray's processes (session {head.session}) do not end")
    return there or head is not None


def _wait_for_holder(home: Any) -> int | None:
    """The process that has just taken the home; one of another version may never say its number."""
    deadline = time.monotonic() + _HOLDER_S
    while (pid := home.holder()) is None and home.is_locked() and time.monotonic() < deadline:
        time.sleep(0.05)
    return cast("int | None", pid)


def _gone(home: Any, pid: int, within_s: float) -> bool:
    """Whether nobody holds the home, and the process itself is gone, within so many seconds."""
    from cluster.actors.host_processes import command_line

    deadline = time.monotonic() + within_s
    while home.is_locked() or b"cluster.service" in command_line(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _unfinished(home: Any) -> str:
    """What the store will go on with."""
    import sqlite3

    if not home.store.exists():
        return ""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{home.store}?mode=ro", uri=True)) as store:
            counts = dict(store.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if not isinstance(error, sqlite3.OperationalError):  # one that is only locked, or has no table yet
            from cluster.service.store_errors import damaged

            return damaged(home.store, str(error))
        return ""
    again = sum(counts.get(state, 0) for state in ("STARTING", "RUNNING", "RECOVERING"))
    parts = [f"{counted(again, 'job')} to start again"] if again else []
    return ", ".join([*parts, *([f"{counted(counts['QUEUED'], 'job')} in the queue"] if counts.get("QUEUED") else [])])
