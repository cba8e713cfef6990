"""`pipetrain show`: any schedule, drawn."""

from __future__ import annotations

import json
from pathlib import Path

import click

from coordinator.chrome_trace import TimedAction, chrome_trace
from coordinator.drawing import draw_timed, legend
from coordinator.replay import Replay, replay
from coordinator.schedules import build, restrict
from coordinator.schedules.csv_format import load_csv, write_csv
from stages.actions import Program
from stages.errors import InvalidSchedule

_TICK_US = 1e-3  # a unit of time is drawn as a millisecond in a trace


@click.command()
@click.argument("schedule")
@click.option("--stages", type=click.IntRange(1), help="Stages; 4 by default, a .csv says its own.")
@click.option("--micro-batches", type=click.IntRange(1), help="Micro-batches; 8 by default, a .csv says its own.")
@click.option("--workers", type=click.IntRange(1), help="Workers; as many as stages, half for interleaved-1f1b.")
@click.option("--weight-grad-group", type=click.IntRange(1), default=1, help="Micro-batches per weight-gradient product.")
@click.option("--format", "form", type=click.Choice(["text", "csv", "chrome"]), default="text")
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="A file instead of the terminal.")
def show(
    schedule: str,
    stages: int | None,
    micro_batches: int | None,
    workers: int | None,
    weight_grad_group: int,
    form: str,
    output: Path | None,
) -> None:
    """Draw SCHEDULE: gpipe, 1f1b, interleaved-1f1b, zb-h1, or a .csv file in torch's format."""
    program = _program(schedule, stages, micro_batches, workers)
    dry = replay(program, weight_grad_group=weight_grad_group)
    text = {"text": _as_text, "csv": _as_csv, "chrome": _as_chrome}[form](dry)
    if output is None:
        click.echo(text)
        return
    try:
        output.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise click.FileError(str(output), error.strerror or "cannot be written") from None


def _program(schedule: str, stages: int | None, micro_batches: int | None, workers: int | None) -> Program:
    if not schedule.endswith(".csv"):
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


def _as_text(dry: Replay) -> str:
    program = dry.program
    several = program.n_workers < program.n_stages
    head = f"{program.name} · {program.n_stages} stages · {program.n_micro_batches} micro-batches"
    if several:
        head += f" · {program.n_workers} workers"
    alive = " ".join(f"stage {s}: {n}" for s, n in enumerate(dry.alive))
    return "\n".join(
        [
            head,
            "",
            draw_timed(dry.spans, with_stage=several),
            "",
            legend(program),
            f"bubble {dry.bubble:.1%} with F = I = W, B = I + W · micro-batches kept, at most: {alive}",
        ]
    )


def _as_csv(dry: Replay) -> str:
    return write_csv(dry.program).rstrip("\n")


def _as_chrome(dry: Replay) -> str:
    timeline = [TimedAction(w, a, t * _TICK_US, e * _TICK_US) for w, lane in enumerate(dry.spans) for a, t, e in lane]
    return json.dumps(chrome_trace(timeline, name=f"{dry.program.name} (predicted)"))
