"""The command line. Commands are loaded when they are called, so that `--help` does not wait for Ray or SciPy."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from importlib.metadata import version
from typing import Any

import click
from click.shell_completion import CompletionItem

from stages.errors import InvalidSchedule, JobFailed, PipetrainError

_COMMANDS = {
    "train": "Train a job and leave its run directory.",
    "evaluate": "Loss and accuracy of a trained run on any data.",
    "predict": "Outputs of a trained run for new inputs.",
    "generate": "Text that a network trained on text writes.",
    "plan": "Stages, memory, bubble and bottleneck of a job, before it runs.",
    "show": "Draw a schedule.",
    "verify": "Prove that every schedule and stage count trains the same weights.",
    "lecture": "Backpropagation's intermediate values, beside formula and finite difference.",
    "up": "Start the local cluster and the job service.",
    "down": "Stop what `pipetrain up` started.",
    "submit": "Hand a job to the service and follow it.",
    "list": "The service's jobs, newest first.",
    "status": "The present state of a job.",
    "describe": "Everything about a job: plan, job file, all that happened to it.",
    "logs": "What a job's processes wrote.",
    "metrics": "The rows of a job's metrics.",
    "wait": "Wait until jobs have ended.",
    "stop": "Stop a job and save what it reached.",
    "fetch": "Bring the files that a job left.",
    "trace": "Record steps of a running job, for Perfetto.",
    "delete": "Forget jobs that have ended.",
    "cluster": "The service, its machines, and what jobs reserve.",
    "top": "Watch jobs and machines.",
    "completion": "Complete commands and job ids with the Tab key.",
}


_OF_THE_HOST = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
"""What no command can do anything about, wherever it happens."""


class _LazyGroup(click.Group):
    """Knows its commands by name; imports one only to run it or to show its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_COMMANDS]  # here `list` is the command of that name, once it is loaded

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"cluster.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([*_COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands by name, without loading them."""
        names = [name for name in _COMMANDS if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(name, help=_COMMANDS[name]) for name in names] + options

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from coordinator.job.nearest import did_you_mean

            raise click.UsageError(f"{error.message.rstrip('.')}{did_you_mean(args[0], [*_COMMANDS])}", ctx) from None


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("pipetrain"), prog_name="pipetrain")
def cli() -> None:
    """Train networks too deep for one machine: exact pipeline-parallel backpropagation in NumPy, on Ray."""


def main() -> None:
    """The `pipetrain` command: 0 done, 1 the job failed, 2 a mistake to put right, 130 stopped by Ctrl-C."""
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    except PipetrainError as error:
        show_error(error)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno is None or not (error.filename or error.errno in _OF_THE_HOST):
            raise
        _show_os_error(error)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _show_os_error(error: OSError) -> None:
    from cluster.cli.texts import harmless

    place = error.filename or "where the output goes"
    click.echo(harmless(f"failed: {os.strerror(error.errno or 0).lower()}: {place}"), err=True)


def show_error(error: PipetrainError) -> None:
    """One line a problem; a failed job with the traceback of its first cause; a broken schedule with its picture."""
    from cluster.cli.texts import harmless

    if isinstance(error, InvalidSchedule) and error.grid:
        click.echo(error.grid, err=True)
    if isinstance(error, JobFailed):
        trace = getattr(error, "traceback", "")
        if trace:
            click.echo(harmless(trace).rstrip(), err=True)
        click.echo(f"failed: {harmless(str(error))}", err=True)
        return
    for problem in getattr(error, "problems", None) or str(error).splitlines():
        click.echo(f"error: {harmless(problem)}", err=True)
