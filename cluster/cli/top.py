"""`pipetrain top`: the service's jobs and machines, as they change."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from cluster.cli.service_options import service_command

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cluster.client import Client

_EVERY_S = 1.0
_ENDED = 5
_QUIT = frozenset(b"qQ\x1b\x03")  # q, Escape, Ctrl-C


@click.command()
@click.option("--once", is_flag=True, help="Print one frame and end; so it is too where the output is no terminal.")
@service_command
def top(client: Client, once: bool) -> None:
    """Watch jobs and machines, a frame a second. q or Ctrl-C ends it."""
    from cluster.cli.job_tables import console

    screen = console()
    first = _frame(client, screen.width)  # without a service there is nothing to begin with
    if once or not sys.stdout.isatty():
        screen.print(first)
        return
    from rich.live import Live

    live = Live(first, console=screen, screen=True, auto_refresh=False)
    with contextlib.suppress(KeyboardInterrupt), _keys() as keys, live:
        while not keys.quit_within(_EVERY_S):
            live.update(_frame_or_error(client, screen.width), refresh=True)


def _frame(client: Client, width: int) -> RenderableType:
    from cluster.cli.overview import overview

    state = client.cluster()
    ended = client.list(["SUCCEEDED", "FAILED", "STOPPED"], limit=_ENDED)
    return overview(client.address, state, ended, width=width)


def _frame_or_error(client: Client, width: int) -> RenderableType:
    from rich.text import Text

    from stages.errors import PipetrainError

    try:
        return _frame(client, width)
    except PipetrainError as error:
        return Text(f"{error}\ntrying again …")


class _Keys:
    """Keys as they are pressed, without Enter."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def quit_within(self, seconds: float) -> bool:
        """Wait so long; True as soon as somebody wants to leave."""
        readable = [] if self._descriptor is None else [self._descriptor]
        ready, _, _ = select.select(readable, [], [], seconds)
        if not ready or self._descriptor is None:
            return False
        pressed = os.read(self._descriptor, 64)
        if not pressed:  # the terminal is gone
            self._descriptor = None
        return bool(_QUIT & set(pressed))


@contextlib.contextmanager
def _keys() -> Iterator[_Keys]:
    """The keyboard, given back as it was; none where standard input is no terminal."""
    if not sys.stdin.isatty():
        yield _Keys(None)
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield _Keys(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
