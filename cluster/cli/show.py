"""`pipetrain show`: draw a schedule."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import click

from coordinator.program.drawing import draw_timed, legend
from coordinator.program.replay import Replay, replay
from coordinator.schedules import build, restrict
from coordinator.schedules.csv_format import load_csv, write_csv
from coordinator.texts import counted
from coordinator.trace.chrome_trace import TimedAction, Track, write_chrome_trace
from coordinator.trace.trace_memory import TraceMemory
from stages.actions import Program
from stages.errors import InvalidSchedule, UserMistake

_UNIT_S = 1e-3  # a unit of time is a millisecond in a trace


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
    zbv, v-half, v-min, dualpipev."""
    program = _program(schedule, stages, micro_batches, workers)
    dry = replay(program, weight_grad_group=weight_grad_group)
    if form == "text":
        color = output is None and "NO_COLOR" not in os.environ  # click removes colours if there is no terminal
        text = _as_text(dry, color=color, columns=shutil.get_terminal_size((100, 24)).columns)
    else:
        text = _as_csv(dry) if form == "csv" else _as_chrome(dry, weight_grad_group)
    if output is None:
        click.echo(text)
        return
    try:
        output.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UserMistake(f"--output: {output} cannot be written: {error.strerror}") from None


def _program(schedule: str, stages: int | None, micro_batches: int | None, workers: int | None) -> Program:
    if not schedule.lower().endswith(".csv"):
        return build(schedule, n_stages=stages or 4, n_micro_batches=micro_batches or 8, n_workers=workers)
    program = load_csv(Path(schedule))
    for name, wanted, found in (("--stages", stages, program.n_stages), ("--workers", workers, program.n_workers)):
        if wanted is not None and wanted != found:
            raise InvalidSchedule(f"{name}: {wanted}, but {schedule} has {found}")
    if micro_batches is None or micro_batches == program.n_micro_batches:
        return program
    if micro_batches > program.n_micro_batches:
        raise InvalidSchedule(f"--micro-batches: {micro_batches}, but {schedule} has {program.n_micro_batches}")
    return restrict(program, micro_batches)


def _as_text(dry: Replay, *, color: bool, columns: int) -> str:
    program = dry.program
    several = program.n_workers < program.n_stages
    in_order = program.placement == tuple(range(program.n_workers))  # worker 0 holds stage 0, and so on
    workers = f" on {counted(program.n_workers, 'worker')}" if several else ""
    return "\n".join(
        [
            f"{program.name} · {counted(program.n_stages, 'stage')}{workers} · "
            f"{counted(program.n_micro_batches, 'micro-batch')}",
            "",
            draw_timed(dry.spans, with_stage=not in_order, columns=columns, color=color),
            "",
            legend(program),
            *_summary(dry, several),
        ]
    )


def _summary(dry: Replay, several: bool) -> list[str]:
    lines = [f"bubble  {dry.bubble:.1%} idle in {dry.makespan:g} units of time (F = I = W = 1, B = 2)"]
    if len(set(dry.bubbles)) > 1:
        lines.append(f"        by worker: {', '.join(f'{bubble:.1%}' for bubble in dry.bubbles)}")
    peaks = ", ".join(map(str, dry.peak_alive))
    lines.append(f"memory  keeps at most {peaks} micro-batches alive on stages 0 … {dry.program.n_stages - 1}")
    if several:
        lines.append(f"        by worker, its stages together: {', '.join(map(str, dry.worker_peak_alive))}")
    if dry.peak_saved_for_input != dry.peak_alive:
        lines.append(f"        until their input gradient: {', '.join(map(str, dry.peak_saved_for_input))}")
    return lines


def _as_csv(dry: Replay) -> str:
    return write_csv(dry.program).rstrip("\n")


def _as_chrome(dry: Replay, weight_grad_group: int) -> str:
    """Return the dry run as the trace that a job would write; the trace's memory counters count micro-batches."""
    timeline = [TimedAction(w, a, t * _UNIT_S, e * _UNIT_S) for w, lane in enumerate(dry.spans) for a, t, e in lane]
    one = [1] * dry.program.n_stages
    rows = (1,) * dry.program.n_micro_batches
    memory = TraceMemory(
        for_input=one, for_weight=one, rows=lambda step: rows, group=weight_grad_group, unit="micro-batches"
    )
    file = io.BytesIO()
    write_chrome_trace(file, Track(timeline=timeline, label="predicted"), name=dry.program.name, memory=memory)
    return file.getvalue().decode().rstrip("\n")
