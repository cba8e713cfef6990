"""Follow a job to its end: show why it waits, its metrics and how it ended."""

from __future__ import annotations

import contextlib
import json
import time

import click

from cluster.cli.progress import Header, RunDisplay, make_progress
from cluster.cli.service_options import BROKEN, detaching, goes_on, hint
from cluster.cli.texts import cause_of, one_line, outcome, show_failure
from cluster.client import Job, JobUpdate
from coordinator.texts import counted
from coordinator.train.story import STORY, STRAGGLES, STRAGGLES_NO_MORE
from stages.errors import PipetrainError

_REMIND_S = 30.0
_FIGURES_EVERY_S = 1.0


def follow(job: Job, *, as_json: bool) -> int:
    """Show a job until it has ended and return its exit code. Ctrl-C raises Exit(130); the job continues.

    `as_json`: print each row, with its attempt, as a line on standard output, and the job as the last line.
    """
    header = Header(f"{job.id}: {job.name} on {counted(job.workers, 'worker')}", job.steps_total, job.state.lower())
    causes: list[str] = []
    figures = _Figures()
    with detaching(lambda: goes_on(job.id)), _progress(header, as_json) as progress:
        notes = _StateNotes(progress)
        notes.state(job)
        for update in job.watch(on_break=notes.broken):
            causes.append(cause_of(update.events))
            notes.update(update)
            if progress.wants_figures:
                figures.ask(job, progress)
            for row in update.rows:
                if as_json:
                    click.echo(json.dumps({"attempt": row.attempt, **row.as_dict()}))
                else:
                    progress.row(row)
    if as_json:
        click.echo(json.dumps(job.as_dict()))
    show_end(job, next((cause for cause in reversed(causes) if cause), ""), quiet=as_json)
    return 1 if job.exit_code is None else job.exit_code


def show_end(job: Job, cause: str = "", *, quiet: bool = False) -> None:
    """Print the result and the command that fetches the run directory; for a failed job, print the cause on standard
    error."""
    if job.state == "FAILED":
        show_failure(job, cause)
        return
    if quiet:
        return
    click.echo(outcome(job))
    if job.model_saved:
        click.echo(f"{hint('fetch', job.id, '-o', 'DIR')} brings its run directory")


def _progress(header: Header, as_json: bool) -> RunDisplay:
    return RunDisplay(header) if as_json else make_progress(header, as_json=False)


class _Figures:
    """The requests for a running job's figures, about one a second."""

    def __init__(self) -> None:
        self._next = 0.0

    def ask(self, job: Job, progress: RunDisplay) -> None:
        """Request the figures and hand them to `progress`, if a second has passed."""
        if job.state != "RUNNING" or time.monotonic() < self._next:
            return
        with contextlib.suppress(PipetrainError):  # figures are optional; the stream of rows reports a lost service
            figures = job.stats()
            if figures is not None:
                progress.figures(figures)
        self._next = time.monotonic() + _FIGURES_EVERY_S


class _StateNotes:
    """Notes on the job's state and the reason for it: one for each change, and reminders while the job waits."""

    def __init__(self, progress: RunDisplay) -> None:
        self._progress = progress
        self._noted = ("", "")
        self._told: set[str] = set()
        self._next = 0.0
        self._away = False

    def broken(self, error: Exception) -> None:
        """Note that the connection is lost and being made again."""
        self._away = True
        self._progress.note(BROKEN)

    def update(self, update: JobUpdate) -> None:
        """Note what an update of the job contains."""
        if self._away:
            self._progress.note("the service is back")
            self._away = False
        job = update.job
        if job.steps_total is not None:
            self._progress.expect(job.steps_total)
        for event in update.events:
            if event.kind in ("starting", "recovering"):
                self._progress.note(one_line(event.text))
                self._remind_later(job)  # the event's text is more detailed than the state's reason
            elif event.kind in ("tracker", STRAGGLES, STRAGGLES_NO_MORE, *STORY):
                self._progress.note(one_line(event.text))
            elif event.kind in ("warning", "data") and event.text not in self._told:  # a later attempt finds the same
                self._told.add(event.text)
                self._progress.note(f"{'warning: ' if event.kind == 'warning' else ''}{one_line(event.text)}")
        self.state(job)

    def _remind_later(self, job: Job) -> None:
        self._noted, self._next = (job.state, one_line(job.reason)), time.monotonic() + _REMIND_S

    def state(self, job: Job) -> None:
        """Note the state if it is new, or if the job still waits _REMIND_S after the last note."""
        now, reason = time.monotonic(), one_line(job.reason)
        waits = job.state in ("QUEUED", "STARTING", "RECOVERING")
        if job.done or (self._noted == (job.state, reason) and not (waits and now >= self._next)):
            return
        if job.state == "RUNNING" and self._noted[0] != "RUNNING":
            self._progress.started()
        if waits:
            self._progress.phase(job.state.lower())
        self._remind_later(job)
        self._progress.note(f"{job.state.lower()}: {reason}" if reason else job.state.lower())
