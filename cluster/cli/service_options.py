"""What the commands of the job service share: its address, the arguments for jobs, and what Ctrl-C does."""

from __future__ import annotations

import contextlib
import functools
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, TypeVar

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from cluster.client import Client

R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

_COMPLETION_S = 1.0
_COMPLETED_JOBS = 50


def service_command(function: Callable[Concatenate[Client, ...], R]) -> Callable[..., R]:
    """Add --address and --home; the command gets the client for that service as its first argument."""

    @click.option("--address", metavar="HOST:PORT", help="The address of the job service (env PIPETRAIN_ADDRESS).")
    @click.option(
        "--home",
        type=click.Path(path_type=Path, file_okay=False),
        help="The home of the job service (env PIPETRAIN_HOME); ~/.pipetrain by default.",
    )
    @functools.wraps(function)
    def command(*args: Any, address: str | None, home: Path | None, **kwargs: Any) -> R:
        from cluster.client import Client

        with Client(address, home=home) as client:
            return function(client, *args, **kwargs)

    return command


def job_argument(command: F) -> F:
    """Add JOB: an id, the beginning of one, or a name. It must match one job only."""
    return click.argument("job_id", metavar="JOB", shell_complete=complete_jobs)(command)


def job_arguments(command: F) -> F:
    """Add JOB…, one or more."""
    return click.argument("job_ids", metavar="JOB...", nargs=-1, required=True, shell_complete=complete_jobs)(command)


def json_option(text: str) -> Callable[[F], F]:
    """Add --json with this help text."""
    return click.option("--json", "as_json", is_flag=True, help=text)


def complete_jobs(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the ids of the newest jobs, and those of their names that are unique. Empty if no service answers within
    a second."""
    with contextlib.suppress(Exception):  # a shell runs this at the prompt: better no completion than a traceback
        from cluster.client import Client

        address, home = context.params.get("address"), context.params.get("home")
        taken = context.params.get("job_ids") or ()
        with Client(address, home=home) as client:
            jobs = client.list(limit=_COMPLETED_JOBS, timeout=_COMPLETION_S)
        names = Counter(job.name for job in jobs)
        return [
            CompletionItem(word, help=f"{job.name} {job.state}")
            for job in jobs
            for word in (job.id, *([job.name] if names[job.name] == 1 else []))
            if word.startswith(incomplete) and word not in taken
        ]
    return []


def hint(*words: str) -> str:
    """Return a command to type next, with the --address or --home of the present command."""
    given = click.get_current_context().params
    options = [f"--{name}={given[name]}" for name in ("address", "home") if given.get(name)]
    return f"`{shlex.join(['pipetrain', *words, *options])}`"


@contextlib.contextmanager
def detaching(text: Callable[[], str]) -> Iterator[None]:
    """If Ctrl-C is pressed inside, print `text()` and end the command with 130; the job continues."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(text(), err=True)
        raise click.exceptions.Exit(130) from None


def goes_on(job_id: str) -> str:
    """The message for a user who leaves a job that continues."""
    return (
        f"{job_id} continues; {hint('wait', job_id)} waits for it, {hint('logs', '-f', job_id)} shows its output, "
        f"{hint('stop', job_id)} stops it"
    )


BROKEN = "the service does not answer; trying again for a minute"


def on_break(error: Exception) -> None:
    """Print that the connection of a stream is lost and being made again."""
    click.echo(BROKEN, err=True)
