"""`pipetrain show`: draw a schedule."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import click

from coordinator.job.schedule_names import TWO_STAGES_A_WORKER, default_workers
from coordinator.program.clock import Timed, as_papers_count, as_workers_do
from coordinator.program.drawing import draw_timed, legend
from coordinator.program.kept import KeptPeaks, kept
from coordinator.program.replay import replay
from coordinator.program.table import ActionTable, apart, table_of
from coordinator.program.thin_drawing import draw_thin, drawn_workers
from coordinator.schedules import MOST_FORWARDS, SCHEDULES, restrict, tabulate
from coordinator.schedules.csv_format import load_csv, write_csv
from coordinator.texts import counted, number
from coordinator.timing.lab import LeftOut, ScheduleComparison, compare, how_estimated
from coordinator.timing.prediction import durations, products
from coordinator.trace.chrome_trace import TimedAction, Track, write_chrome_trace
from coordinator.trace.trace_memory import TraceMemory
from stages.actions import Kind, Program
from stages.errors import InvalidSchedule, UserMistake

_UNIT_S = 1e-3  # a unit of time is a millisecond in a trace
_MOST_CELLS = 20_000  # workers × units of time; a larger picture is thinned


@click.command()
@click.argument("schedule")
@click.option("--stages", type=click.IntRange(1), help="The number of stages; 4 by default, or that of the .csv.")
@click.option(
    "--micro-batches", type=click.IntRange(1), help="The number of micro-batches; 8 by default, or that of the .csv."
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="The number of workers; by default that of the stages, or half as many for schedules with two stages each.",
)
@click.option(
    "--weight-grad-group",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="The number of micro-batches whose weight gradients one matrix product computes.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "csv", "chrome"]),
    default="text",
    show_default=True,
    help="A picture as text, torch's .csv format, or a Chrome trace.",
)
@click.option(
    "--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file, not to the terminal."
)
def show(
    schedule: str,
    stages: int | None,
    micro_batches: int | None,
    workers: int | None,
    weight_grad_group: int,
    form: str,
    output: Path | None,
) -> None:
    """Draw SCHEDULE: a .csv file in torch's format, or one of gpipe, 1f1b, interleaved-1f1b, looped-bfs, zb-h1, zb-h2,
    zbv, v-half, v-min, dualpipev.

    The bubble is the idle share of the workers' time in a step. The bubble rate, as in the zero-bubble papers, leaves
    out that workers begin and end one after the other. A B is performed as its I, which is sent, and then its W; where
    papers count it as one action, that figure is shown, too."""
    plain = form == "text" and weight_grad_group == 1
    large = _too_large(schedule, stages or 4, micro_batches or 8, workers) if plain else None
    table = None if large is not None else _table(schedule, stages, micro_batches, workers)
    if table is None:
        text = large or ""
    elif form == "text":
        color = output is None and "NO_COLOR" not in os.environ  # click removes colours if there is no terminal
        columns = shutil.get_terminal_size((100, 24)).columns
        text = _as_text(table, weight_grad_group, color=color, columns=columns)
    elif form == "csv":
        text = write_csv(table.program()).rstrip("\n")
    else:
        text = _as_chrome(apart(table).program(), weight_grad_group)
    if output is None:
        click.echo(text)
        return
    try:
        output.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UserMistake(f"--output: {output} cannot be written: {error.strerror}") from None


def _table(schedule: str, stages: int | None, micro_batches: int | None, workers: int | None) -> ActionTable:
    if not schedule.lower().endswith(".csv"):
        return tabulate(schedule, n_stages=stages or 4, n_micro_batches=micro_batches or 8, n_workers=workers)
    program = load_csv(Path(schedule))
    for name, wanted, found in (("--stages", stages, program.n_stages), ("--workers", workers, program.n_workers)):
        if wanted is not None and wanted != found:
            raise InvalidSchedule(f"{name}: {wanted}, but {schedule} has {found}")
    if micro_batches is not None and micro_batches > program.n_micro_batches:
        raise InvalidSchedule(f"--micro-batches: {micro_batches}, but {schedule} has {program.n_micro_batches}")
    return table_of(restrict(program, micro_batches or program.n_micro_batches))


def _too_large(schedule: str, stages: int, micro_batches: int, workers: int | None) -> str | None:
    """Return the figures of a program that is too large to be made, as text: for one stage a worker, or two if the
    schedule is made for that; None for others. Times are in forward passes of a stage."""
    if schedule not in SCHEDULES or stages * micro_batches <= MOST_FORWARDS:
        return None
    n_workers = default_workers(schedule, stages) if workers is None else workers
    a_worker = 2 if schedule in TWO_STAGES_A_WORKER else 1
    if stages != a_worker * n_workers:
        return None
    unit = float(a_worker)
    question = ScheduleComparison(n_workers=n_workers, n_micro_batches=micro_batches, times=(unit, unit, unit))
    (row,) = compare(question, [schedule], most_work=0)
    if isinstance(row, LeftOut):
        raise InvalidSchedule(f"{schedule}: {micro_batches:,} micro-batches are too few, it {row.why}")
    several = f" on {counted(n_workers, 'worker')}" if a_worker > 1 else ""
    return "\n".join(
        [
            f"{schedule} · {counted(stages, 'stage')}{several} · {counted(micro_batches, 'micro-batch')}",
            "",
            f"bubble  {row.bubble:.1%} idle in {number(row.step)} units of time (F = I = W = 1); "
            f"bubble rate {row.bubble_rate:.1%}; from {'a law' if row.origin == 'law' else f'an {row.origin_text()}'}",
            f"memory  a worker keeps at most {number(a_worker * row.kept)} micro-batches alive"
            f"{', its stages together' if several else ''}",
            f"sent    {row.messages:,} arrays",
            "",
            *how_estimated([row]),
        ]
    )


def _as_text(table: ActionTable, weight_grad_group: int, *, color: bool, columns: int) -> str:
    timed = as_workers_do(table, weight_grad_group=weight_grad_group)
    several = table.n_workers < table.n_stages
    workers = f" on {counted(table.n_workers, 'worker')}" if several else ""
    return "\n".join(
        [
            f"{table.name} · {counted(table.n_stages, 'stage')}{workers} · "
            f"{counted(table.n_micro_batches, 'micro-batch')}",
            "",
            *_picture(timed, color=color, columns=columns),
            *_bubbles(table, timed),
            *_memory(table, kept(table, weight_grad_group)),
        ]
    )


def _picture(timed: Timed, *, color: bool, columns: int) -> list[str]:
    table = timed.table
    if table.n_workers * timed.makespan <= _MOST_CELLS:
        in_order = table.placement == tuple(range(table.n_workers))  # worker 0 holds stage 0, and so on
        spans = [timed.spans(worker) for worker in range(table.n_workers)]
        picture = draw_timed(spans, with_stage=not in_order, columns=columns, color=color)
        return [picture, "", legend(table.kinds())]
    picture = draw_thin(timed, columns=columns, color=color)
    drawn = drawn_workers(table.n_workers)
    which = "" if len(drawn) == table.n_workers else f"{len(drawn)} of {table.n_workers} workers; "
    wide = f"{timed.makespan:g} units of time in each line"
    return [picture, "", f"{which}{wide}, each letter what a worker does most of its time", legend(table.kinds())]


def _bubbles(table: ActionTable, timed: Timed) -> list[str]:
    lines = [
        f"bubble  {timed.bubble:.1%} idle in {timed.makespan:g} units of time (F = I = W = 1); "
        f"bubble rate {timed.bubble_rate:.1%}"
    ]
    if len(set(timed.bubbles)) > 1:
        lines.append(f"        by worker: {listed([f'{bubble:.1%}' for bubble in timed.bubbles])}")
    if Kind.BACKWARD in table.kinds():
        papers = as_papers_count(table)
        how = "the halves of a pair end together" if len(table.pairs) else "each B (I and W) is one action"
        lines.append(f"        {papers.bubble:.1%} in {papers.makespan:g} as papers count: {how}")
    return lines


def _memory(table: ActionTable, peaks: KeptPeaks) -> list[str]:
    lines = [f"memory  keeps at most {listed(peaks.alive)} micro-batches alive on stages 0 … {table.n_stages - 1}"]
    if table.n_workers < table.n_stages:
        lines.append(f"        by worker, its stages together: {listed(peaks.together)}")
    if peaks.for_input != peaks.alive:
        lines.append(f"        until their input gradient: {listed(peaks.for_input)}")
    return lines


def listed(values: Sequence[object]) -> str:
    """Return the values with commas; of many, the first and the last ones."""
    words = list(map(str, values))
    return ", ".join(words if len(words) <= 24 else [*words[:12], "…", *words[-4:]])


def _as_chrome(program: Program, weight_grad_group: int) -> str:
    """Return the dry run as the trace that a job would write; the trace's memory counters count micro-batches."""
    made = products(program, weight_grad_group)
    dry = replay(program, durations(made, lambda stage, kind, j: 1.0), weight_grad_group=weight_grad_group)
    timeline = [TimedAction(w, a, t * _UNIT_S, e * _UNIT_S) for w, lane in enumerate(dry.spans) for a, t, e in lane]
    one = [1] * dry.program.n_stages
    rows = (1,) * dry.program.n_micro_batches
    memory = TraceMemory(
        for_input=one, for_weight=one, rows=lambda step: rows, group=weight_grad_group, unit="micro-batches"
    )
    file = io.BytesIO()
    write_chrome_trace(file, Track(timeline=timeline, label="predicted"), name=dry.program.name, memory=memory)
    return file.getvalue().decode().rstrip("\n")
