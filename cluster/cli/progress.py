"""The progress of a run: a live view on a terminal, plain lines elsewhere, or a JSON object for each row."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click
from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live

from cluster.cli.live_facts import LiveRun, LiveWorker, RecentRows, RecentTimes, local_workers, workers_of
from cluster.cli.live_view import live_view
from cluster.cli.texts import harmless
from cluster.run.worker_times import predicted_bubbles, worker_times
from coordinator.texts import per_second, text_measures
from coordinator.train.rows import EvalRow, Row, StepRow, TrainedStep

if TYPE_CHECKING:
    from cluster.client import JobFigures
    from coordinator.timing.accounts import AccountsLine

_LINE_EVERY_S = 5.0
_FRAMES_A_SECOND = 4


@dataclass(frozen=True, slots=True)
class Header:
    """The facts that are known before the first row: a line about the run, and its number of steps if its data was read
    already.

    `phase` is the first phase that a live view shows. The rest is about workers that this process started:
    `placement[s]` is the worker of stage s, `limit_bytes` the memory limit of each worker; `one_process` says that the
    workers are threads.
    """

    title: str
    steps_total: int | None = None
    phase: str = "starting workers"
    placement: Sequence[int] = field(default=())
    limit_bytes: int | None = None
    one_process: bool = False


class RunDisplay:
    """A display with plain lines: one for each evaluation, and one every few seconds between evaluations."""

    wants_figures = False
    """Whether the display uses what `figures` gives it."""

    def __init__(self, header: Header) -> None:
        self._title, self._steps_total = header.title, header.steps_total
        self._rows = RecentRows()
        self._next_line = 0.0

    def __enter__(self) -> Self:
        self.note(self._title)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def expect(self, steps_total: int) -> None:
        """Set the number of steps of the run, which is known once its data was read."""
        self._steps_total = steps_total

    def phase(self, text: str) -> None:
        """Set what the run does before it trains, in a word or two; a live view shows it in place of the epoch."""

    def started(self) -> None:
        """Note that the workers have started."""
        self._next_line = time.monotonic() + _LINE_EVERY_S

    def lay_out(self, placement: Sequence[int]) -> None:
        """Take in that the run has another layout: `placement[s]` is now the worker of stage s."""

    def figures(self, figures: JobFigures) -> None:
        """Set the figures of the job's workers that the service has."""

    def note(self, text: str) -> None:
        """Print a line about the run."""
        click.echo(harmless(text), err=True)

    def row(self, row: Row) -> None:
        """Show a row."""
        last = self._rows.last
        if self._rows.evaluation is None and last is not None and row.epoch > last.epoch:
            self._line()  # of the epoch that has ended: no evaluation did it
        self._rows.take(row, time.monotonic())
        if isinstance(row, EvalRow):
            self._line(row)
        elif time.monotonic() >= self._next_line:
            self._line()

    def _line(self, evaluation: EvalRow | None = None) -> None:
        self._next_line = time.monotonic() + _LINE_EVERY_S
        last = self._rows.last
        epoch, done = (last.epoch, last.step) if last else (0, 0)
        place = f"{done}" if self._steps_total is None else f"{done}/{self._steps_total}"
        self.note(f"epoch {epoch:>3} · step {place} · {' · '.join(self._facts(evaluation))}")

    def _facts(self, evaluation: EvalRow | None) -> Iterator[str]:
        rows = self._rows
        if rows.last is not None:
            yield f"mean loss {rows.means.loss:.4g}"
            yield f"{per_second(rows.samples_per_second or 0.0)} samples/s"
            predicted = rows.last.bubble_predicted
            yield f"bubble {rows.bubble or 0.0:.0%}" + ("" if predicted is None else f" (predicted {predicted:.0%})")
        if evaluation is not None:
            yield f"validation loss {evaluation.loss_per_row:.4g}"
            yield from text_measures(evaluation.perplexity, evaluation.bits_per_byte)
            if evaluation.accuracy is not None:
                yield f"accuracy {evaluation.accuracy:.2%}"


class _Json(RunDisplay):
    """A display that prints the rows of metrics.jsonl on standard output."""

    def row(self, row: Row) -> None:
        click.echo(json.dumps(row.as_dict()))


class LiveProgress(RunDisplay):
    """A live view. One thread adds rows, another one draws the frames."""

    wants_figures = True

    def __init__(self, header: Header, console: Console | None = None) -> None:
        super().__init__(header)
        self._header, self._phase = header, header.phase
        self._lock = threading.Lock()
        self._times = RecentTimes()
        self._accounts: AccountsLine | None = None
        self._peaks: dict[int, int] = {}
        self._figures: JobFigures | None = None
        console = console or Console(stderr=True)
        self._live = Live(self, console=console, transient=True, refresh_per_second=_FRAMES_A_SECOND)

    def __enter__(self) -> Self:
        self._live.start()
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        with self._lock:
            facts = self.facts()
        yield live_view(facts, width=options.max_width, height=options.size.height)

    def phase(self, text: str) -> None:
        """See RunDisplay."""
        self._phase = text

    def started(self) -> None:
        """See RunDisplay."""
        self._phase = "training"

    def lay_out(self, placement: Sequence[int]) -> None:
        """See RunDisplay."""
        with self._lock:
            self._header = replace(self._header, placement=placement)
            self._accounts, self._peaks = None, {}

    def figures(self, figures: JobFigures) -> None:
        """See RunDisplay."""
        with self._lock:
            self._figures = figures

    def note(self, text: str) -> None:
        """See RunDisplay."""
        self._live.console.print(harmless(text), highlight=False, markup=False)

    def row(self, row: Row) -> None:
        """See RunDisplay."""
        with self._lock:
            self._rows.take(row, time.monotonic())
            if not isinstance(row, StepRow):
                return
            self._phase = f"epoch {row.epoch}"
            if not isinstance(row, TrainedStep):
                return
            self._accounts = row.accounts_then or self._accounts
            for worker, report in enumerate(row.reports):
                if report.memory is not None:
                    self._peaks[worker] = report.memory.peak_job

    def facts(self) -> LiveRun:
        """Return the present facts of the run."""
        rows, last, evaluation = self._rows, self._rows.last, self._rows.evaluation
        durations = rows.durations
        return LiveRun(
            phase=self._phase,
            step=0 if last is None else last.step,
            steps_total=self._steps_total,
            seconds_left=rows.seconds_left(self._steps_total),
            losses=rows.losses,
            loss=rows.means.loss,
            accuracy=rows.means.accuracy,
            validation_loss=None if evaluation is None else evaluation.loss_per_row,
            validation_accuracy=None if evaluation is None else evaluation.accuracy,
            validation_perplexity=None if evaluation is None else evaluation.perplexity,
            samples_per_second=rows.samples_per_second,
            step_mean=durations.mean,
            step_median=durations.median,
            bubble=rows.bubble,
            bubble_predicted=None if last is None else last.bubble_predicted,
            workers=self._workers(),
            one_process=self._header.one_process,
        )

    def _workers(self) -> tuple[LiveWorker, ...]:
        if self._figures is not None:
            return workers_of(self._figures.workers, self._times)
        placement = self._header.placement
        if self._accounts is None or not placement:
            return ()
        accounts = self._accounts.as_dict()
        return local_workers(
            worker_times(accounts, placement),
            placement,
            self._times,
            predicted=predicted_bubbles(accounts, placement),
            peaks=self._peaks,
            limit_bytes=self._header.limit_bytes,
        )


def make_progress(header: Header, *, as_json: bool) -> RunDisplay:
    """Return JSON rows if `as_json`, else a live view if standard error is a terminal, else plain lines."""
    if as_json:
        return _Json(header)
    return LiveProgress(header) if sys.stderr.isatty() else RunDisplay(header)
