"""`pipetrain top`: the service's jobs and machines, as they change."""

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
_LEAST_ROOM = 7  # a blank line, three of the run, one of its workers, why it is slow
_QUIT = frozenset(b"qQ\x1b\x03")  # q, Escape, Ctrl-C


@click.command()
@click.option("--once", is_flag=True, help="Print one frame and end; so it is too where the output is no terminal.")
@service_command
def top(client: Client, once: bool) -> None:
    """Watch jobs and machines, a frame a second: how each job that runs goes, and where its workers' time goes. q or
    Ctrl-C ends it.

    CPUS and MEMORY of a node are what jobs have reserved, whether they use it or not, of what it has.
    """
    from cluster.cli.output import console

    screen = console()
    frames = _Frames(client, screen)
    if once or not sys.stdout.isatty():
        screen.print(frames.next(None))  # without a service there is nothing to begin with
        return
    from rich.live import Live

    live = Live(frames.next(screen.height), console=screen, screen=True, auto_refresh=False)
    with contextlib.suppress(KeyboardInterrupt), _keys() as keys, live:
        while not keys.quit_within(_EVERY_S):
            live.update(frames.next_or_error(screen.height), refresh=True)


class _Frames:
    """Frame after frame, as each job's times of late follow from what was seen before."""

    def __init__(self, client: Client, screen: Console) -> None:
        self._client, self._screen = client, screen
        self._pulses: dict[str, JobPulse] = {}

    def next(self, height: int | None) -> RenderableType:
        """The present frame, of at most so many lines where that is given. Raises NoService."""
        from rich.console import Group

        from cluster.cli.overview import overview

        client, width = self._client, self._screen.width
        state = client.cluster()
        ended = client.list(["SUCCEEDED", "FAILED", "STOPPED"], limit=_ENDED)
        whole = overview(client.address, state, ended, width=width)
        room = None if height is None else height - len(self._screen.render_lines(whole))
        return Group(whole, *self._running(state.active, room))

    def next_or_error(self, height: int) -> RenderableType:
        """The present frame, or why there is none."""
        from rich.text import Text

        from stages.errors import PipetrainError

        try:
            return self.next(height)
        except PipetrainError as error:
            return Text(f"{error}\ntrying again …")

    def _running(self, active: Sequence[Job], room: int | None) -> Iterator[RenderableType]:
        """The jobs that run, as many as there is room for."""
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
                continue  # its times go on being followed: there may be room later
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
