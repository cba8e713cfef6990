"""`pipetrain top`: watch the service's jobs and machines live."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from cluster.cli.service_options import service_command

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from cluster.cli.live_facts import JobPulse
    from cluster.client import Client, Job

_EVERY_S = 1.0
_ENDED = 5
_MOST_RUNNING = 20
_LEAST_ROOM = 7  # lines: a blank one, three of the run, two of its workers, one for why it is slow
_QUIT = frozenset(b"qQ\x1b\x03")  # q, Escape, Ctrl-C


@click.command()
@click.option("--once", is_flag=True, help="Print one frame and end, as if the output is no terminal.")
@service_command
def top(client: Client, once: bool) -> None:
    """Watch jobs and machines live: the progress of each running job, and how its workers spend their time. q or Ctrl-C
    ends the command.

    CPUS and MEMORY show how much of a node jobs have reserved, whether they use it or not, and how much it has.
    """
    from cluster.cli.output import console

    screen = console()
    frames = _Frames(client, screen)
    if once or not sys.stdout.isatty():
        screen.print(frames.next(None))  # raises NoService
        return
    from rich.live import Live

    live = Live(frames.next(screen.height), console=screen, screen=True, auto_refresh=False)
    with contextlib.suppress(KeyboardInterrupt), _keys() as keys, live:
        while not keys.quit_within(_EVERY_S):
            live.update(frames.next_or_error(screen.height), refresh=True)


class _Frames:
    """The frames of the view. It keeps what earlier frames saw, from which each job's recent times follow."""

    def __init__(self, client: Client, screen: Console) -> None:
        self._client, self._screen = client, screen
        self._pulses: dict[str, JobPulse] = {}

    def next(self, height: int | None) -> RenderableType:
        """Return the present frame, of at most `height` lines if that is given. Raises NoService."""
        from rich.console import Group

        from cluster.cli.overview import overview

        client, width = self._client, self._screen.width
        state = client.cluster()
        ended = client.list(["SUCCEEDED", "FAILED", "STOPPED"], limit=_ENDED)
        whole = overview(client.address, state, ended, width=width)
        room = None if height is None else height - len(self._screen.render_lines(whole))
        return Group(whole, *self._running(state.active, room))

    def next_or_error(self, height: int) -> RenderableType:
        """Return the present frame, or the error if the service does not answer."""
        from rich.text import Text

        from stages.errors import PipetrainError

        try:
            return self.next(height)
        except PipetrainError as error:
            return Text(f"{error}\ntrying again …")

    def _running(self, active: Sequence[Job], room: int | None) -> Iterator[RenderableType]:
        """Yield the views of the running jobs, as many as fit."""
        from rich.text import Text

        from cluster.cli.live_facts import JobPulse
        from cluster.cli.live_view import live_view

        jobs = [job for job in active if job.state == "RUNNING"][:_MOST_RUNNING]
        figures = self._client.stats(*(job.id for job in jobs)) if jobs else {}
        self._pulses = {job.id: self._pulses.get(job.id) or JobPulse() for job in jobs}
        for job in jobs:
            if job.id not in figures:
                continue
            facts = self._pulses[job.id].facts(job, figures[job.id], time.monotonic())
            if room is not None and room < _LEAST_ROOM:
                continue  # `facts` above keeps its times: there may be room for it later
            slow = self._pulses[job.id].why_slow(figures[job.id])
            why = Text("" if slow is None else f"slow: {slow}", style="yellow")
            lines = 1 + (0 if slow is None else len(self._screen.render_lines(why)))
            view = live_view(facts, width=self._screen.width, height=None if room is None else room - lines)
            yield ""
            yield view
            if slow is not None:
                yield why
            if room is not None:
                room -= lines + len(self._screen.render_lines(view))


class _Keys:
    """The keys that a user presses, read without Enter."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def quit_within(self, seconds: float) -> bool:
        """Wait for `seconds`; return True as soon as a key is pressed that ends the command."""
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
    """Read single keys from the terminal and restore its settings at the end. Without a terminal there are no keys."""
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
