"""`pipetrain plan`: show a job's stages, memory, predicted bubble and bottleneck before it runs."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import click
from rich.table import Table

from cluster.actors.ray_room import room_at_start
from cluster.checkpoints.given_weights import require_weights
from cluster.cli.options import job_options, read_job
from cluster.cli.output import console
from cluster.cli.step_tables import comparison_document, comparison_lines, prediction_document, prediction_lines
from cluster.cli.texts import harmless
from cluster.data.measure import measure as measure_data
from cluster.data.sources import JobData, load_data
from cluster.run.calibration import calibrate
from cluster.run.recorded_steps import RecordedSteps, laid_out_as, recorded_steps, require_run
from coordinator import run_files
from coordinator.job.schedule_names import AUTO
from coordinator.job.spec import JobSpec
from coordinator.learning.data_warnings import data_warnings
from coordinator.plan.auto_schedule import with_searched_schedule
from coordinator.plan.blueprint import Blueprint, make_blueprint
from coordinator.plan.choosing import chosen
from coordinator.plan.estimate import Estimate, estimate
from coordinator.plan.layer_table import LayerRow, folded, layer_rows
from coordinator.plan.layout import PipelineLayout, lay_out, with_layout
from coordinator.plan.planned_schedule import gain_text, planned_schedule
from coordinator.plan.predicted_step import predicted_step
from coordinator.plan.rate_picture import notable_steps, rate_picture
from coordinator.schedules.csv_format import write_csv
from coordinator.texts import counted, number, size
from coordinator.timing.machine_times import MachineTimes
from coordinator.timing.step_comparison import compare as compare_steps
from stages.data import batch_bounds
from stages.errors import NotEnoughResources, UserMistake
from stages.network import path_name

_WIDE = 120
"""Columns of a terminal below which the tables leave out what `--json` has in any case."""


@click.command()
@job_options(required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.option("--layers", is_flag=True, help="Show each operation of the network, without folding alike blocks.")
@click.option(
    "--write-schedule",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the schedule to this .csv file, too: what `schedule: auto` found, for example.",
)
@click.option("--rates", is_flag=True, help="Draw the learning rate over the steps instead.")
@click.option(
    "--measure", is_flag=True, help="Measure F, I, W and messages here for some seconds, and predict a step from them."
)
@click.option(
    "--compare",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="RUN_DIR",
    help="Measure here, and show the prediction beside the steps of this run, cause by cause. JOB is the run's.",
)
def plan(
    job: Path | None,
    stages: int | None,
    schedule: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
    layers: bool,
    write_schedule: Path | None,
    rates: bool,
    measure: bool,
    compare: Path | None,
) -> None:
    """Show what JOB.yaml reads, and its stages: layers, parameters, FLOPs, bytes, predicted bubble and bottleneck.

    If layers are made of layers, such as a transformer, a table of them comes first; it has a line for blocks that are
    alike, and the number of these blocks.

    Without --measure, the bubble follows from counted operations. With it, the product's own code is measured here, in
    as many processes as workers compute at once.

    Warnings say what in the data may keep the network from learning. The command exits with 2 if a worker's stages need
    more than memory_per_worker.
    """
    if compare is not None:
        require_run(compare)
    if job is None:
        if compare is None:
            raise UserMistake("JOB.yaml: missing, must be a job file")
        job = compare / run_files.JOB
    spec = read_job(job, overrides, stages=stages, schedule=schedule)
    data = load_data(spec)
    full = min(spec.training.batch_size, len(data.train))
    recorded = None if compare is None else recorded_steps(compare, full)
    spec = data.spec if recorded is None else laid_out_as(recorded, data.spec)
    require_weights(spec)
    if rates:
        _rates(spec, len(data.train), as_json=as_json)
        return
    room = room_at_start(spec, local=False, address=None, most=None)
    spec, lines = chosen(spec, len(data.train), room, **data.for_plan)
    data = replace(data, spec=spec, said=(*data.said, *lines))
    times: MachineTimes | None
    if measure and recorded is None:
        blueprint, times = _laid_out_as_measured(spec, data, room)
    else:
        blueprint = lay_out(spec, len(data.train), room, **data.for_plan)
        times = None if recorded is None else _measured(blueprint, recorded)
    found = estimate(blueprint, **data.for_plan)
    warnings = data_warnings(measure_data(data))
    for warning in warnings:
        click.echo(harmless(f"warning: {warning.text}"), err=True)
    if recorded is not None and spec.pipeline.schedule == AUTO:
        click.echo("warning: the run's schedule was searched; it is searched anew, so it may be another one", err=True)
    if as_json:
        told = {
            **found.as_dict(),
            **planned_schedule(blueprint),
            "data": list(data.said),
            "warnings": [asdict(warning) for warning in warnings],
            **_predicted(blueprint, times, recorded).document,
        }
        click.echo(json.dumps({**told, "operations": [asdict(row) for row in layer_rows(blueprint)]}))
    else:
        click.echo("\n".join(harmless(line) for line in data.said))
        rows = layer_rows(blueprint)
        if layers or any(len(row.path) > 1 for row in rows):
            _print_layers(spec.name, rows if layers else folded(rows))
        _print(blueprint, found, measured=times is not None)
        click.echo("\n".join(_predicted(blueprint, times, recorded).lines))
    if write_schedule is not None:
        _write(blueprint, write_schedule)
    if found.refusals:
        raise NotEnoughResources("\n".join(found.refusals))


def _rates(spec: JobSpec, rows: int, *, as_json: bool) -> None:
    """Draw the learning rate over the job's steps, and list it at the notable steps."""
    training = spec.training
    a_epoch = len(batch_bounds(rows, training.batch_size))
    steps, rate = training.n_steps(a_epoch), training.rates(a_epoch)
    notable = notable_steps(rate, steps, training.schedule.warmup_steps(a_epoch))
    if as_json:
        told = [{"step": one.step, "learning_rate": one.rate, "what": one.what} for one in notable]
        click.echo(json.dumps({"steps": steps, "learning_rates": told}))
        return
    click.echo(f"{spec.name}: learning rate, {training.schedule.kind}, over {counted(steps, 'step')}\n")
    width = min(100, shutil.get_terminal_size((84, 24)).columns)
    click.echo("\n".join(rate_picture(rate, steps, width=width - 12)))
    click.echo()
    for one in notable:
        click.echo(f"{one.step:>12,}  {number(one.rate):<10} {one.what}")


def _print_layers(name: str, rows: Sequence[LayerRow]) -> None:
    """Print a line for each operation, and for each group of alike ones the number of its first one."""
    screen = console()
    columns: dict[str, Callable[[LayerRow], str]] = {
        "number": lambda row: str(row.number),
        "layer": lambda row: path_name(row.path),
        "kind": lambda row: row.kind,
        "output": lambda row: row.output,
        "parameters": lambda row: f"{row.parameters:,}",
        "FLOPs/step": lambda row: f"{row.flops:.3g}",
        "kept until backward": lambda row: size(row.kept_bytes, "up"),
        "times": lambda row: f"× {row.times}",
    }
    if all(row.times == 1 for row in rows):
        del columns["times"]
    if screen.width < _WIDE:
        del columns["number"], columns["FLOPs/step"], columns["kept until backward"]
    table = Table(title=f"{name}: layers")
    for heading in columns:
        table.add_column(heading, justify="left" if heading in ("layer", "kind", "output") else "right")
    for row in rows:
        table.add_row(*(text(row) for text in columns.values()))
    screen.print(table)


def _write(blueprint: Blueprint, path: Path) -> None:
    try:
        path.write_text(write_csv(blueprint.program), encoding="utf-8")
    except OSError as error:
        raise UserMistake(f"--write-schedule: {path} cannot be written: {error.strerror}") from None


def _print(blueprint: Blueprint, found: Estimate, *, measured: bool) -> None:
    screen = console()
    program, spec = blueprint.program, blueprint.spec
    table = Table(
        title=f"{spec.name}: {program.name}, {counted(program.n_micro_batches, 'micro-batch')} "
        f"of {max(blueprint.micro_batch_rows)} rows"
    )
    kinds = ["weights", "gradients", "optimizer", "buffers", "of them saved"] if screen.width >= _WIDE else ["bytes"]
    for heading in ("stage", "worker", "layers", "parameters", "FLOPs/step", *kinds):
        table.add_column(heading, justify="left" if heading == "layers" else "right")
    for s in found.stages:
        names = _layers(s.layers, [spec.model_spec().network.ops[k].kind for k in s.layers])
        memory = s.memory
        parts = memory.weights, memory.gradients, memory.optimizer, memory.pool, memory.saved
        table.add_row(
            str(s.stage),
            str(s.worker),
            names,
            f"{s.parameters:,}",
            f"{s.flops:.3g}",
            *(size(b) for b in (parts if screen.width >= _WIDE else [memory.total])),
        )
    screen.print(table)
    table = Table(title="workers: bytes for the job, without Python and its libraries")
    copies = ["checkpoint"] if any(w.checkpoint_bytes for w in found.workers) else []
    for heading in ("worker", "stages", "arrays sent", "data rows", *copies, "total", "limit", "busy"):
        table.add_column(heading, justify="right")
    for w in found.workers:
        limit = "none" if w.limit is None else f"{size(w.limit, 'down')}{'' if w.fits else ' TOO SMALL'}"
        table.add_row(
            str(w.worker),
            *(size(b, "up") for b in (w.stages_bytes, w.message_bytes, w.data_bytes)),
            *([size(w.checkpoint_bytes, "up")] if copies else []),
            size(w.total, "up"),
            limit,
            f"{w.busy:.0%}",
        )
    screen.print(table)
    source = " by counted operations" if measured else ""
    screen.print(
        f"predicted bubble {found.bubble:.1%}{source} · bottleneck: worker {found.bottleneck}, "
        f"busy {found.workers[found.bottleneck].busy:.0%} of a step"
    )
    gain = gain_text(planned_schedule(blueprint)["searched"])
    if gain:
        screen.print(gain)


class _Predicted(NamedTuple):
    """What is said about a step's time: lines for people, and entries of the document."""

    lines: list[str]
    document: dict[str, object]


def _laid_out_as_measured(spec: JobSpec, data: JobData, room: int) -> tuple[Blueprint, MachineTimes]:
    """Return the plan, and the times that were measured here: one measurement for the prediction, for a partition by
    measured costs, and for a schedule that is searched."""
    n_train, pipeline = len(data.train), spec.pipeline
    if pipeline.partition != "measured":
        blueprint = lay_out(spec, n_train, room, **data.for_plan)
        times = _measured(blueprint, None)
        return with_searched_schedule(blueprint, times), times
    draft = spec.replace(partition="auto", **({"schedule": "zb-h1"} if pipeline.schedule == AUTO else {}))
    counted_cut = lay_out(draft, n_train, room, **data.for_plan)
    times = _measured(counted_cut, None, alone=True)
    layout = PipelineLayout(counted_cut.program.n_stages, counted_cut.n_workers)
    return make_blueprint(with_layout(spec, layout), n_train, times), times


def _measured(blueprint: Blueprint, recorded: RecordedSteps | None, *, alone: bool = False) -> MachineTimes:
    """Measure the plan's stages here and, if `alone`, each layer by itself."""
    click.echo("measuring F, I, W and messages of this job here …", err=True)
    rows = sorted(set(blueprint.micro_batch_rows))
    times = calibrate(blueprint.spec, blueprint.n_workers, bounds=[blueprint.bounds], rows=rows, alone=alone)
    if recorded is None:
        return times
    return replace(times, cores=recorded.cores or times.cores, host_of=recorded.host_of)


def _predicted(blueprint: Blueprint, times: MachineTimes | None, recorded: RecordedSteps | None) -> _Predicted:
    """Predict a step from times that were measured; None if none were."""
    if times is None:
        counted_only = (
            "Bubble and busy shares follow from counted operations, and sending takes no time in them. A run "
            "predicts its bubble from measured times, so its figure differs. --measure measures here."
        )
        return _Predicted([counted_only], {"prediction": {"source": "counted"}})
    rows, step = blueprint.micro_batch_rows, predicted_step(blueprint, times)
    lines = ["", *prediction_lines(step, times, sum(rows))]
    document: dict[str, object] = {"prediction": prediction_document(step, times, sum(rows))}
    if recorded is not None:
        found = compare_steps(step, recorded.steps)
        lines += ["", *comparison_lines(found, recorded.median, recorded.steps)]
        document["comparison"] = comparison_document(found, recorded.median, recorded.steps)
    return _Predicted(lines, document)


def _layers(numbers: range, kinds: list[str]) -> str:
    """Return layers as text, such as `0–3: 2 linear, 2 relu`."""
    span = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]}–{numbers[-1]}"
    return f"{span}: " + ", ".join(f"{count} {kind}" if count > 1 else kind for kind, count in Counter(kinds).items())
