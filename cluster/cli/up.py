"""`pipetrain up`: start the local cluster and the job service."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from cluster.cli.quantities import Duration, Size
from coordinator.texts import counted
from stages.errors import NotEnoughResources, UserMistake

_START_TIMEOUT_S = 180.0
_LINE_EVERY_S = 2.0


@click.command()
@click.option("--workers", type=click.IntRange(1), help="The CPUs of the local Ray; by default all of the machine.")
@click.option("--ray-address", metavar="HOST:PORT", help="Join this Ray cluster instead of starting one.")
@click.option(
    "--home",
    type=click.Path(path_type=Path),
    envvar="PIPETRAIN_HOME",
    help="The folder for the service's jobs, uploads and logs; ~/.pipetrain by default.",
)
@click.option(
    "--grpc-port",
    type=click.IntRange(0, 65535),
    default=7070,
    show_default=True,
    help="The port for commands and Python clients; 0 chooses a free one.",
)
@click.option(
    "--http-port",
    type=click.IntRange(0, 65535),
    default=7071,
    show_default=True,
    help="The port of the dashboard; 0 chooses a free one.",
)
@click.option(
    "--max-queued", type=click.IntRange(1), default=10_000, show_default=True, help="The most jobs that may wait."
)
@click.option(
    "--max-upload", type=Size(), default="16GiB", show_default=True, help="The largest file that a client may upload."
)
@click.option(
    "--keep-uploads",
    type=Duration(),
    default="7d",
    show_default=True,
    help="How long to keep an uploaded file that no job uses.",
)
@click.option(
    "--data-root",
    "data_roots",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Let jobs read local data only below this folder; may be repeated. By default they read "
    "every file that you may read.",
)
@click.option(
    "--data-protocols",
    metavar="LIST",
    help="Let jobs read only URLs of these protocols, such as https,s3; file stands for local paths.",
)
@click.option(
    "--tracking-root",
    "tracking_roots",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Let trackers write only below this folder; may be repeated. By default jobs from this host may write "
    "anywhere, jobs from other hosts nowhere.",
)
@click.option("--detach", is_flag=True, help="Return when the service is ready; it continues in the background.")
def up(
    workers: int | None,
    ray_address: str | None,
    home: Path | None,
    grpc_port: int,
    http_port: int,
    max_queued: int,
    max_upload: int,
    keep_uploads: float,
    data_roots: tuple[Path, ...],
    data_protocols: str | None,
    tracking_roots: tuple[Path, ...],
    detach: bool,
) -> int:
    """Start a local Ray with --workers CPUs and the job service, which only this machine can reach.

    Without --detach the command shows a status line, and Ctrl-C stops everything, as `pipetrain down` does.
    """
    from cluster.cli.down import end_service
    from cluster.client.address import command_for
    from cluster.service.home import DEFAULT_HOME, Home

    if workers is not None and ray_address is not None:
        raise UserMistake("--workers and --ray-address exclude each other: a cluster that is joined has its own CPUs")
    place = Home(home or Path(DEFAULT_HOME))
    place.make()
    end_command = command_for(place.folder, "down")
    if place.is_locked():
        raise UserMistake(f"{place.describe_service()}; `{end_command}` stops it")
    if ray_address is not None:
        from cluster.actors.ray_session import check_address

        check_address(ray_address, "--ray-address")
    options = ["--home", str(place.folder), "--grpc-port", str(grpc_port), "--http-port", str(http_port)]
    options += ["--max-queued", str(max_queued), "--max-upload", str(max_upload), "--keep-uploads", str(keep_uploads)]
    options += [part for root in data_roots for part in ("--data-root", str(root.absolute()))]
    options += [part for root in tracking_roots for part in ("--tracking-root", str(root.absolute()))]
    options += ["--data-protocols", _protocols(data_protocols)] if data_protocols is not None else []
    options += ["--workers", str(workers)] if workers is not None else []
    options += ["--ray-address", ray_address] if ray_address is not None else []
    if detach:
        _start(place, options)
        submit_command = command_for(place.folder, "submit")
        click.echo(f"`{submit_command} JOB.yaml` submits a job, `{end_command}` stops everything", err=True)
        return 0
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        return _stay(place, _start(place, options))
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a second signal must not interrupt the end
        click.echo("\nstopping", err=True)
        end_service(place)
        click.echo("down", err=True)
        return 0


def _protocols(text: str) -> str:
    """Return the list without spaces. Raises UserMistake for a protocol that is not supported."""
    from coordinator.job.source_names import PROTOCOLS

    names = [name.strip().lower() for name in text.split(",")]
    if wrong := [name for name in names if name not in PROTOCOLS]:
        raise UserMistake(f"--data-protocols: got {wrong[0]!r}, must be some of {','.join(PROTOCOLS)}")
    return ",".join(names)


def _start(home: Any, options: list[str]) -> subprocess.Popen[bytes]:
    """Start the service's process and return when it is ready. If it ends, raise UserMistake with its reason, which
    comes through a pipe, because its log may be on a full disk. Raises NotEnoughResources if it takes too long."""
    from cluster.service.__main__ import READY, TROUBLE

    log = home.logs / "service.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "cluster.service", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,
            cwd=home.folder,
        )
    assert process.stdout is not None, "Popen was given a pipe"
    os.set_blocking(process.stdout.fileno(), False)
    written = b""
    deadline = time.monotonic() + _START_TIMEOUT_S
    try:
        while True:
            written += process.stdout.read() or b""
            ended = process.poll() is not None  # even a service that was ready may have ended since
            written += (process.stdout.read() or b"") if ended else b""
            lines = written.decode(errors="replace").splitlines()
            if ended:
                troubles = [line.removeprefix(TROUBLE).strip() for line in lines if line.startswith(TROUBLE)]
                raise UserMistake(
                    "\n".join(troubles) or f"the service ended at once ({_ending(process)}); {log} says why"
                )
            found = home.read(home.service_file) if READY in lines else None
            if found is not None and _listens(found["http"]):
                click.echo(f"up: dashboard http://{found['http']}, gRPC {found['grpc']}, home {home.folder}", err=True)
                return process
            if time.monotonic() > deadline:
                raise NotEnoughResources(f"the service is not ready after {_START_TIMEOUT_S:g} s; {log} says more")
            time.sleep(0.05)
    except BaseException:
        _end(process)
        raise
    finally:
        process.stdout.close()


def _listens(address: str) -> bool:
    """Whether the address accepts connections; it does not if the service has ended since it was ready."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_START_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a service that is not ready. If it ignores SIGTERM, or is stopped (SIGSTOP), kill it after TERM_S."""
    from cluster.cli.down import TERM_S

    process.terminate()
    try:
        process.wait(TERM_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _stay(home: Any, process: subprocess.Popen[bytes]) -> int:
    """Show a status line until the service ends unexpectedly; return the exit code 1."""
    from cluster.client.address import command_for

    shown = ""
    while process.poll() is None:
        line = _status(home)
        if line != shown:
            click.echo(f"\r\033[K{line}" if sys.stderr.isatty() else line, err=True, nl=not sys.stderr.isatty())
        shown = line
        time.sleep(_LINE_EVERY_S)
    click.echo(
        f"\nthe service ended unexpectedly ({_ending(process)}); its log is {home.logs / 'service.log'}. "
        f"Running jobs continue: `{command_for(home.folder, 'up')}` finds them, "
        f"`{command_for(home.folder, 'down')}` ends them",
        err=True,
    )
    return 1


def _ending(process: subprocess.Popen[bytes]) -> str:
    return f"code {process.returncode}" if process.returncode >= 0 else signal.Signals(-process.returncode).name


def _status(home: Any) -> str:
    from cluster.cli.texts import one_line
    from cluster.client import Client

    try:
        state = Client(home=home.folder).cluster()
    except UserMistake as error:
        return error.problems[0]
    cpus = sum(node.cpus for node in state.nodes)
    used = sum(node.cpus_used for node in state.nodes)
    jobs = ", ".join(f"{n} {name}" for name, n in sorted(state.jobs.items())) or "no jobs yet"
    troubles = "".join(f" · {one_line(problem)}" for problem in state.problems)
    return f"{counted(len(state.nodes), 'node')}, {used:g} of {cpus:g} CPUs reserved · {jobs}{troubles}"
