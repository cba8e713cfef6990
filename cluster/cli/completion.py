"""`pipetrain completion`: print a shell's completion script."""

from __future__ import annotations

import os
from pathlib import PurePath

import click
from click.shell_completion import get_completion_class

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS), required=False)
def completion(shell: str | None) -> None:
    """Print the script with which a shell (bash, zsh or fish) completes commands, options, files and job ids.

    The default is your login shell. For bash, put this line into ~/.bashrc: eval "$(pipetrain completion bash)"
    """
    name = shell or PurePath(os.environ.get("SHELL", "")).name
    found = get_completion_class(name) if name in _SHELLS else None
    if found is None:
        raise click.UsageError(f"there is no completion for the shell {name!r}; choose one of {', '.join(_SHELLS)}")
    from cluster.cli import cli

    click.echo(found(cli, {}, "pipetrain", "_PIPETRAIN_COMPLETE").source())
