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

TERM_S = 75.0
"""How many seconds a service has to end after SIGTERM, before SIGKILL."""
_HOLDER_S = 2.0


@click.command()
@click.option(
    "--home",
    type=click.Path(path_type=Path),
    envvar="PIPETRAIN_HOME",
    help="The service's home; ~/.pipetrain by default.",
)
def down(home: Path | None) -> int:
    """Stop the service and its local Ray, with all their processes.

    Running jobs finish the steps in progress and save a checkpoint, if they can within 30 seconds. Waiting jobs stay in
    the queue. The next `pipetrain up` starts running jobs again, from their newest checkpoints.
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
    """End the service's process, then its Ray if one is left. Return whether there was either. Raises JobFailed if a
    process cannot be ended."""
    from cluster.actors.host_processes import command_line, own_process_with
    from cluster.service.ray_head import RayHead

    there, pid = home.is_locked(), home.holder()
    if not there:  # the lock of a service whose home was moved or deleted is not in this folder
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
    with contextlib.suppress(OSError):  # Ray must end even if the disk has become read-only
        home.service_file.unlink(missing_ok=True)
    head = RayHead.left_by_another(home)
    if head is not None and not head.end(home):
        raise JobFailed(f"some of Ray's processes (session {head.session}) do not end")
    return there or head is not None


def _wait_for_holder(home: Any) -> int | None:
    """Wait for the number of the process that has just locked the home. None if it does not write one in time: a
    service of another version may never do so."""
    deadline = time.monotonic() + _HOLDER_S
    while (pid := home.holder()) is None and home.is_locked() and time.monotonic() < deadline:
        time.sleep(0.05)
    return cast("int | None", pid)


def _gone(home: Any, pid: int, within_s: float) -> bool:
    """Whether, within `within_s` seconds, no process locks the home and the service's process has ended."""
    from cluster.actors.host_processes import command_line

    deadline = time.monotonic() + within_s
    while home.is_locked() or b"cluster.service" in command_line(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _unfinished(home: Any) -> str:
    """Return in words how many jobs the next service starts again and how many stay in the queue."""
    import sqlite3

    if not home.store.exists():
        return ""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{home.store}?mode=ro", uri=True)) as store:
            counts = dict(store.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if not isinstance(error, sqlite3.OperationalError):  # that error: the store is locked, or has no table yet
            from cluster.service.store_errors import damaged

            return damaged(home.store, str(error))
        return ""
    again = sum(counts.get(state, 0) for state in ("STARTING", "RUNNING", "RECOVERING"))
    parts = [f"{counted(again, 'job')} to start again"] if again else []
    return ", ".join([*parts, *([f"{counted(counts['QUEUED'], 'job')} in the queue"] if counts.get("QUEUED") else [])])
