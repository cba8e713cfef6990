"""The command line. Commands are loaded when they are called, so that `--help` does not wait for Ray or SciPy."""

from __future__ import annotations

import errno
import importlib
import keyword
import os
import sys
from importlib.metadata import version
from typing import Any

import click
from click.shell_completion import CompletionItem

from stages.errors import InvalidSchedule, JobFailed, PipetrainError

_COMMANDS = {
    "data": "Describe a data file and suggest a job for it.",
    "train": "Train a job and write its run directory.",
    "resume": "Go on with a run from its newest checkpoint.",
    "checkpoints": "List, inspect, compare, verify and export checkpoints.",
    "evaluate": "Show how good a trained network is, on its validation rows or on other data.",
    "predict": "Write the answers of a trained network for new rows.",
    "generate": "Continue a text with a network trained on text.",
    "import": "Make a job and its weights from a model in GPT-2's layout.",
    "export": "Write a trained network in GPT-2's layout.",
    "tune": "Find the settings with which a job's steps are shortest on this machine.",
    "plan": "Show a job's stages, memory, predicted bubble and bottleneck before it runs.",
    "show": "Draw a schedule.",
    "lab": "Compare all schedules: step time, bubble, memory and messages, and their pictures.",
    "verify": "Prove that every schedule and number of stages trains the same weights.",
    "lecture": "Compare each value of backpropagation with its formula and a finite difference.",
    "up": "Start the local cluster and the job service.",
    "down": "Stop what `pipetrain up` started.",
    "submit": "Submit a job to the service and follow it.",
    "list": "List the service's jobs, newest first.",
    "status": "Show the state of a job.",
    "describe": "Show everything about a job: plan, job file and events.",
    "logs": "Show the output of a job's processes.",
    "metrics": "Show the metrics of a job: a row for each step and evaluation.",
    "wait": "Wait until jobs have ended.",
    "stop": "Stop a job and save its weights.",
    "fetch": "Download the run directory of a job.",
    "trace": "Record steps of a running job for Perfetto.",
    "delete": "Delete jobs that have ended.",
    "chaos": "Let workers fail on purpose, and prove that it leaves no trace.",
    "cluster": "Show the service, its machines, and the CPUs and memory that jobs reserve.",
    "top": "Watch jobs and machines live.",
    "completion": "Print the script that completes commands and job ids with the Tab key.",
}


_OF_THE_HOST = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
"""Faults of the machine, such as a full disk. A user gets one line for them and no traceback, whichever command
runs."""


class _LazyGroup(click.Group):
    """A group that knows its commands by name and imports one only to run it or to show its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_COMMANDS]  # not list(): once the command `list` is loaded, this package's name `list` is its module

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        name = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        module = importlib.import_module(f"cluster.cli.{name}")
        command: click.Command = getattr(module, name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([*_COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the names of commands without loading the commands."""
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
    """Train networks that are too deep for one machine: exact pipeline-parallel backpropagation in NumPy, on Ray."""


def main() -> None:
    """Run the `pipetrain` command. Exit codes: 0 done, 1 the job failed, 2 a mistake of the user, 130 stopped by
    Ctrl-C; docs/commands.md has all."""
    try:
        code = cli.main(prog_name="pipetrain", standalone_mode=False)
    except click.ClickException as error:
        _show_click_error(error)
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


def _show_click_error(error: click.ClickException) -> None:
    """Print an error in the command's arguments in the form of all others."""
    from cluster.cli.texts import one_line

    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return
    message = one_line(error.format_message().strip()).rstrip(".")
    first = message.split(" ")[0]
    said = message if first.isupper() or not first.isalpha() else message[0].lower() + message[1:]
    context = getattr(error, "ctx", None)
    hint = "" if context is None else f"; `{context.command_path} --help` describes its arguments"
    click.echo(f"error: {said}{hint}", err=True)


def _show_os_error(error: OSError) -> None:
    from cluster.cli.texts import harmless

    place = error.filename or "the output"
    click.echo(harmless(f"failed: {os.strerror(error.errno or 0).lower()}: {place}"), err=True)


def show_error(error: PipetrainError) -> None:
    """Print an error: one line for each problem, the traceback of a failed job's first cause, the picture of an invalid
    schedule."""
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
