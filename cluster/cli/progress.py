"""Progress of a run: a bar on a terminal, plain lines otherwise, or a JSON object a row."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from types import TracebackType
from typing import Self

import click
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Column

from cluster.cli.options import counted
from cluster.training import Run
from coordinator.trainer import EvalRow, Row, StepRow

_LINE_EVERY_S = 5.0


class Progress:
    """Plain lines: one for each evaluation, and one every few seconds between them."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._recent: deque[StepRow] = deque(maxlen=50)
        self._last: StepRow | None = None
        self._next_line = 0.0

    def __enter__(self) -> Self:
        spec, blueprint = self._run.spec, self._run.blueprint
        cut = " ".join(
            f"{a}–{b - 1}" if b - a > 1 else f"{a}"
            for a, b in zip(blueprint.bounds, blueprint.bounds[1:], strict=False)
        )
        self.note(
            f"{spec.name}: {counted(len(blueprint.bounds) - 1, 'stage')} (layers {cut}) on "
            f"{counted(blueprint.n_workers, 'worker')}, {blueprint.program.name}, "
            f"{counted(blueprint.program.n_micro_batches, 'micro-batch')}"
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def started(self) -> None:
        """The workers are there."""
        self._next_line = time.monotonic() + _LINE_EVERY_S

    def note(self, text: str) -> None:
        """Say something about the run."""
        click.echo(text, err=True)

    def row(self, row: Row) -> None:
        """Show a row."""
        if isinstance(row, StepRow):
            self._last = row
            self._recent.append(row)
            if time.monotonic() >= self._next_line:
                self._line()
        else:
            self._line(row)

    def _line(self, evaluation: EvalRow | None = None) -> None:
        self._next_line = time.monotonic() + _LINE_EVERY_S
        epoch = self._last.epoch + 1 if self._last else 0
        place = f"epoch {epoch:>3} · step {self._run.steps_done}/{self._run.steps_total}"
        self.note(f"{place} · {self._facts(evaluation)}")

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


class _Bar(Progress):
    """A bar with the same facts; the last evaluation stays beside the last step."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._bar = RichProgress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(min_width=8, max_width=30, ratio=1)),
            TextColumn("{task.completed:.0f}/{task.total:.0f}", table_column=Column(no_wrap=True)),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[facts]}", table_column=Column(no_wrap=True)),
            console=Console(stderr=True),
            transient=True,
            expand=True,
        )
        self._task = self._bar.add_task("starting workers", total=run.steps_total, facts="")
        self._evaluation: EvalRow | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def started(self) -> None:
        self._bar.update(self._task, description="training")

    def note(self, text: str) -> None:
        self._bar.console.print(text, highlight=False)

    def row(self, row: Row) -> None:
        if isinstance(row, StepRow):
            self._last = row
            self._recent.append(row)
        else:
            self._evaluation = row
        self._bar.update(
            self._task,
            completed=self._run.steps_done,
            description=f"epoch {self._last.epoch + 1 if self._last else 0}",
            facts=self._facts(self._evaluation),
        )


def make_progress(run: Run, *, as_json: bool) -> Progress:
    """The form that fits where the output goes."""
    if as_json:
        return _Json(run)
    return _Bar(run) if sys.stderr.isatty() else Progress(run)
