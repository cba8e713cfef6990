"""`pipetrain lab`: all schedules side by side."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import click
from rich.table import Table

from cluster.cli.options import NumberRange
from cluster.cli.output import console
from coordinator.job.nearest import did_you_mean
from coordinator.program.drawing import legend
from coordinator.program.table import ActionTable
from coordinator.program.thin_drawing import draw_thin
from coordinator.schedules import SCHEDULES
from coordinator.schedules.csv_format import write_csv
from coordinator.texts import counted, exact, number, share
from coordinator.timing.lab import (
    LeftOut,
    Row,
    ScheduleComparison,
    Searched,
    compare,
    comparison_document,
    how_estimated,
    search_too,
    shortest_text,
)
from stages.actions import Kind
from stages.errors import InvalidSchedule, UserMistake

MOST_TIME = 1e9
"""The longest time: sums of longer ones may overflow."""
_ROWS = 8
_COLUMNS = ("schedule", "stages", "step", "bubble", "bubble rate", "kept a worker", "messages")


@click.command()
@click.option(
    "--stages",
    type=click.IntRange(1, 10**9),
    default=8,
    show_default=True,
    help="Stages, one for each worker. Schedules with two stages a worker cut each in two.",
)
@click.option(
    "--micro-batches", type=click.IntRange(1, 10**9), default=32, show_default=True, help="Micro-batches in a step."
)
@click.option(
    "--times",
    default="1,1,1",
    metavar="F,I,W",
    show_default=True,
    help="How long a worker's layers take for F, I and W of a micro-batch, in any unit.",
)
@click.option(
    "--latency",
    type=NumberRange(0, MOST_TIME),
    default=0.0,
    show_default=True,
    help="How long an array takes from one worker to the next, in the same unit.",
)
@click.option("--memory", type=NumberRange(0), help="The most micro-batches that a worker can keep.")
@click.option(
    "--schedules", default="all", show_default=True, help="Schedules to compare, separated by commas, or all."
)
@click.option("--search", is_flag=True, help="Search for a still better schedule for these times, too.")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the schedule that --search finds to this .csv file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def lab(
    stages: int,
    micro_batches: int,
    times: str,
    latency: float,
    memory: float | None,
    schedules: str,
    search: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Compare all schedules: the same network, on as many workers, in a dry run.

    The bubble is the idle share of the workers' time in a step. The bubble rate, as in the zero-bubble papers, leaves
    out that workers begin and end one after the other. "Kept" are the micro-batches that a worker keeps at most from F
    to W; with two stages a worker, those of one stage count half. Below the table, all schedules are drawn on one time
    axis, with at most eight workers each.
    """
    question = ScheduleComparison(
        n_workers=stages, n_micro_batches=micro_batches, times=_times(times), latency=latency, memory=memory
    )
    if output is not None and not search:
        raise UserMistake("--output: goes with --search, whose schedule it writes")
    rows: list[Row | LeftOut] = compare(question, _names(schedules), must_fit=not search)
    searched = search_too(question) if search else None
    if searched is not None:
        rows.append(searched.row)
        if output is not None:
            _write(searched.row.timed.table, output)
    if as_json:
        click.echo(json.dumps(comparison_document(question, rows, searched), indent=2))
        return
    console().print(_table(question, rows))
    for row in rows:
        if isinstance(row, LeftOut):
            click.echo(f"{row.schedule} {row.why}")
    for line in how_estimated(rows):
        click.echo(line)
    _recommend(question, rows)
    if searched is not None:
        _print_gain(searched, output)
    _draw(rows)


def _write(table: ActionTable, output: Path) -> None:
    try:
        output.write_text(write_csv(table.program()), encoding="utf-8")
    except OSError as error:
        raise UserMistake(f"--output: {output} cannot be written: {error.strerror}") from None


def _times(text: str) -> tuple[float, float, float]:
    try:
        forward, backward, weight = map(float, text.split(","))
    except ValueError:
        raise UserMistake(f"--times: {text!r} is not three numbers F,I,W such as 1,1,1") from None
    if not all(0 < time <= MOST_TIME for time in (forward, backward, weight)):
        raise UserMistake(f"--times: {text!r}: each of F, I and W must be above 0 and at most {MOST_TIME:g}")
    return forward, backward, weight


def _names(text: str) -> list[str]:
    names = list(SCHEDULES) if text == "all" else [part.strip() for part in text.split(",")]
    for name in names:
        if name not in SCHEDULES:
            hint = did_you_mean(name, SCHEDULES)
            raise InvalidSchedule(f"--schedules: {name!r} is not one of {', '.join(SCHEDULES)}, or all{hint}")
    return names


def _table(question: ScheduleComparison, rows: Sequence[Row | LeftOut]) -> Table:
    forward, backward, weight = question.times
    title = (
        f"{counted(question.n_workers, 'worker')}, {counted(question.n_micro_batches, 'micro-batch')}, "
        f"F = {forward:g}, I = {backward:g}, W = {weight:g}, latency {question.latency:g}"
    )
    large = any(isinstance(row, Row) and row.origin != "program" for row in rows)
    columns = [*_COLUMNS, "step from"] if large else _COLUMNS
    table = Table(title=title)
    for heading in columns:
        table.add_column(heading, justify="left" if heading == "schedule" else "right")
    for row in rows:
        if isinstance(row, LeftOut):
            table.add_row(row.schedule, *["–"] * (len(columns) - 1))
        else:
            too_much = "" if row.fits else " (too many)"
            table.add_row(
                row.schedule,
                f"{row.n_stages:,}" if large else str(row.n_stages),
                row.step_text(),
                share(row.bubble),
                share(row.bubble_rate),
                f"{exact(row.kept)}{too_much}",
                f"{row.messages:,}",
                *([row.origin_text()] if large else []),
            )
    return table


def _recommend(question: ScheduleComparison, rows: Sequence[Row | LeftOut]) -> None:
    text = shortest_text(question, rows)
    if text:
        click.echo(text)


def _print_gain(searched: Searched, output: Path | None) -> None:
    if searched.gain_text():
        click.echo(searched.gain_text())
    if output is not None:
        n_stages = counted(searched.row.timed.table.n_stages, "stage")
        click.echo(f"auto has {n_stages} and is written to {output}: pipeline.schedule takes it")


def _draw(rows: Sequence[Row | LeftOut]) -> None:
    built = [row for row in rows if isinstance(row, Row)]
    if not built:
        return
    columns = shutil.get_terminal_size((100, 24)).columns
    whole = all(row.origin == "program" for row in built)
    longest = max(row.step for row in built)
    used: set[Kind] = set()
    for row in built:
        used |= row.timed.table.kinds()
        size = f"{row.timed.table.n_workers} workers × {row.timed.table.n_micro_batches} micro-batches"
        click.echo(f"\n{row.schedule}" if row.origin == "program" else f"\n{row.schedule}, drawn with {size}")
        color = "NO_COLOR" not in os.environ  # click removes colours if there is no terminal
        until = longest * row.timed.makespan / row.step
        click.echo(draw_thin(row.timed, columns=columns, until=until, rows=_ROWS, color=color))
    axis = f"each line is {number(longest)} long" if whole else f"each line stands for {number(longest)}"
    click.echo(f"\n{axis}; a letter is what a worker does most of its time")
    click.echo(legend(used))
