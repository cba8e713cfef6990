"""Progress of a run: a bar on a terminal, plain lines otherwise, or a JSON object a row."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import click
from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

from coordinator.rows import EvalRow, Row, StepRow

_LINE_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Header:
    """What is known before the first row: a line about the run, and its steps, where its data was read already.

    `phase` is what a bar says until something else is known.
    """

    title: str
    steps_total: int | None = None
    phase: str = "starting workers"


class Progress:
    """Plain lines: one for each evaluation, and one every few seconds between them."""

    def __init__(self, header: Header) -> None:
        self._title, self._steps_total = header.title, header.steps_total
        self._recent: deque[StepRow] = deque(maxlen=50)
        self._last: StepRow | None = None
        self._next_line = 0.0

    def __enter__(self) -> Self:
        self.note(self._title)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def expect(self, steps_total: int) -> None:
        """The data was read: so many steps it will be."""
        self._steps_total = steps_total

    def phase(self, text: str) -> None:
        """What goes on instead of training, in a word or two; a bar shows it in place of the epoch."""

    def started(self) -> None:
        """The workers are there."""
        self._next_line = time.monotonic() + _LINE_EVERY_S

    def note(self, text: str) -> None:
        """Say something about the run."""
        click.echo(text, err=True)

    def row(self, row: Row) -> None:
        """Show a row."""
        if isinstance(row, StepRow):
            self._take(row)
            if time.monotonic() >= self._next_line:
                self._line()
        else:
            self._line(row)

    def _take(self, row: StepRow) -> None:
        if self._last is not None and row.attempt != self._last.attempt:
            self._recent.clear()
        self._last = row
        self._recent.append(row)

    def _line(self, evaluation: EvalRow | None = None) -> None:
        self._next_line = time.monotonic() + _LINE_EVERY_S
        epoch = self._last.epoch + 1 if self._last else 0
        self.note(f"epoch {epoch:>3} · step {self._place()} · {self._facts(evaluation)}")

    def _place(self) -> str:
        """`57/690`, or `57` where nobody knows how many there will be."""
        done = 0 if self._last is None else self._last.step + 1
        return f"{done}" if self._steps_total is None else f"{done}/{self._steps_total}"

    def _facts(self, evaluation: EvalRow | None) -> str:
        parts = []
        if self._last is not None:
            seconds = sum(row.seconds for row in self._recent)
            parts.append(f"loss {self._last.loss:.4g}")
            parts.append(f"{sum(row.samples for row in self._recent) / seconds:,.0f} samples/s")
            parts.append(f"bubble {sum(row.bubble * row.seconds for row in self._recent) / seconds:.0%}")
        if evaluation is not None:
            parts.append(f"validation loss {evaluation.loss:.4g}")
            if evaluation.accuracy is not None:
                parts.append(f"accuracy {evaluation.accuracy:.2%}")
        return " · ".join(parts)


class _Json(Progress):
    """The rows of metrics.jsonl on standard output."""

    def row(self, row: Row) -> None:
        click.echo(json.dumps(row.as_dict()))


class _FactsColumn(ProgressColumn):
    """The facts on one line. This column alone gives way where the terminal is narrow: only one that may wrap does."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["facts"], no_wrap=True, overflow="ellipsis")


class _Bar(Progress):
    """A bar with the same facts; the last evaluation stays beside the last step."""

    def __init__(self, header: Header) -> None:
        super().__init__(header)
        self._bar = RichProgress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(min_width=8, max_width=30, ratio=1)),
            TextColumn("{task.fields[place]}", table_column=Column(no_wrap=True)),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            _FactsColumn(),
            console=Console(stderr=True),
            transient=True,
            expand=True,
        )
        self._task = self._bar.add_task(header.phase, total=header.steps_total, place=self._place(), facts="")
        self._evaluation: EvalRow | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def expect(self, steps_total: int) -> None:
        super().expect(steps_total)
        self._bar.update(self._task, total=steps_total, place=self._place())

    def phase(self, text: str) -> None:
        self._bar.update(self._task, description=text)

    def started(self) -> None:
        self._bar.update(self._task, description="training")

    def note(self, text: str) -> None:
        self._bar.console.print(text, highlight=False, markup=False)

    def row(self, row: Row) -> None:
        if isinstance(row, StepRow):
            self._take(row)
        else:
            self._evaluation = row
        self._bar.update(
            self._task,
            completed=0 if self._last is None else self._last.step + 1,
            place=self._place(),
            description=f"epoch {self._last.epoch + 1 if self._last else 0}",
            facts=self._facts(self._evaluation),
        )


def make_progress(header: Header, *, as_json: bool) -> Progress:
    """The form that fits where the output goes."""
    if as_json:
        return _Json(header)
    return _Bar(header) if sys.stderr.isatty() else Progress(header)
