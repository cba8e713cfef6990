"""`pipetrain completion`: the Tab key for a shell."""

from __future__ import annotations

import os
from pathlib import PurePath

import click
from click.shell_completion import get_completion_class

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS), required=False)
def completion(shell: str | None) -> None:
    """Print the script that completes commands, options, files and job ids in a SHELL: bash, zsh or fish.

    Without SHELL it is the one of your login. For bash: eval "$(pipetrain completion bash)" in ~/.bashrc.
    """
    name = shell or PurePath(os.environ.get("SHELL", "")).name
    found = get_completion_class(name) if name in _SHELLS else None
    if found is None:
        raise click.UsageError(f"no completion for the shell {name!r}; name one: {', '.join(_SHELLS)}")
    from cluster.cli import cli

    click.echo(found(cli, {}, "pipetrain", "_PIPETRAIN_COMPLETE").source())
