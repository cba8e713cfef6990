"""What the commands of the job service share: where it is, jobs by their ids, and what Ctrl-C leaves as it is."""

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
    """--address and --home; the command's first argument becomes the client that they lead to."""

    @click.option("--address", metavar="HOST:PORT", help="The job service's address (env PIPETRAIN_ADDRESS).")
    @click.option(
        "--home",
        type=click.Path(path_type=Path, file_okay=False),
        help="The service's home (env PIPETRAIN_HOME); ~/.pipetrain by default.",
    )
    @functools.wraps(function)
    def command(*args: Any, address: str | None, home: Path | None, **kwargs: Any) -> R:
        from cluster.client import Client

        with Client(address, home=home) as client:
            return function(client, *args, **kwargs)

    return command


def job_argument(command: F) -> F:
    """JOB: an id, any prefix of it that no other job has, or a name that no other job has."""
    return click.argument("job_id", metavar="JOB", shell_complete=complete_jobs)(command)


def job_arguments(command: F) -> F:
    """JOB…, one or more."""
    return click.argument("job_ids", metavar="JOB...", nargs=-1, required=True, shell_complete=complete_jobs)(command)


def json_option(text: str) -> Callable[[F], F]:
    """--json, with what it prints."""
    return click.option("--json", "as_json", is_flag=True, help=text)


def complete_jobs(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The newest jobs whose ids begin so, and the names that only one has. Silent if no service answers at once."""
    with contextlib.suppress(Exception):  # a shell waits for this: no answer is better than a traceback in the prompt
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
    """A command to type next, with the --address or --home that this one was given."""
    given = click.get_current_context().params
    options = [f"--{name}={given[name]}" for name in ("address", "home") if given.get(name)]
    return f"`{shlex.join(['pipetrain', *words, *options])}`"


@contextlib.contextmanager
def detaching(text: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C inside ends the command with 130 and says that the job goes on."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(text(), err=True)
        raise click.exceptions.Exit(130) from None


def goes_on(job_id: str) -> str:
    """What a user who looks away is told."""
    return (
        f"{job_id} goes on; {hint('wait', job_id)} waits for it, {hint('logs', '-f', job_id)} shows its output, "
        f"{hint('stop', job_id)} ends it"
    )


BROKEN = "the service does not answer; trying again for a minute"


def on_break(error: Exception) -> None:
    """A stream's connection broke and is being made again."""
    click.echo(BROKEN, err=True)
