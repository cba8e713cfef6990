"""`pipetrain verify`: prove that pipelines train the same weights as one process."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from cluster.actors.ray_room import room_at_start
from cluster.actors.ray_session import workers_session
from cluster.actors.ray_workers import RayWorkers
from cluster.checkpoints.given_weights import begin_with, check_weights, with_place_of_weights
from cluster.cli.options import set_option, where_options
from cluster.cli.output import console
from cluster.data.sources import JobData, load_data
from coordinator.job.schedule_names import AUTO, default_workers, fewest_micro_batches
from coordinator.job.spec import JobSpec, load_job
from coordinator.plan.blueprint import Blueprint, make_blueprint
from coordinator.plan.choosing import chosen
from coordinator.plan.partition import parts_name
from coordinator.plan.settings import settings_of, with_settings
from coordinator.schedules import SCHEDULES
from coordinator.train.local import LocalWorkers
from coordinator.train.parity import Comparison, compare, train_pipeline
from coordinator.train.reference import train_reference
from coordinator.train.workers import Workers
from stages.arrays import Array
from stages.data import batch_bounds
from stages.errors import InvalidJob, InvalidSchedule, UserMistake
from stages.spec import ModelSpec


@click.command()
@click.argument("job", type=click.Path(path_type=Path), metavar="JOB.yaml")
@click.option(
    "--stages",
    default=None,
    metavar="1,2,3,4",
    help="Numbers of stages to try, separated by commas; by default 1 to 4.",
)
@click.option("--schedules", default="all", show_default=True, help="Schedules to try, separated by commas, or all.")
@click.option("--steps", type=click.IntRange(1), default=20, show_default=True, help="The number of steps to train.")
@set_option
@where_options
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
def verify(
    job: Path,
    stages: str | None,
    schedules: str,
    steps: int,
    overrides: tuple[str, ...],
    local: bool,
    address: str | None,
    as_json: bool,
) -> int:
    """Train JOB.yaml with every schedule and number of stages, and compare each with training in one process.

    The reference computes the whole network in a plain loop over the same micro-batches. The command compares every
    parameter after the last step, every gradient of the last step, and the loss of each step, bit by bit. It exits with
    1 if any bit differs.
    """
    base, data = _base(job, overrides, local=local, address=address)
    batches = len(batch_bounds(len(data.train), base.training.batch_size))
    length = {"training__steps": steps} if base.training.steps else {"training__epochs": -(-steps // batches)}
    base = base.replace(**length)
    weights, begin = check_weights(base), begin_with(base)
    blueprints = [
        make_blueprint(_with(base, count, schedule), len(data.train))
        for schedule in _schedules(schedules)
        for count in _stage_counts(stages, base.model_spec())
        if schedules != "all" or _can_be_built(schedule, count, base)
    ]
    expected = train_reference(base, data.train, steps, begin)
    rows: list[tuple[Blueprint, Comparison]] = []
    most = max(blueprint.n_workers for blueprint in blueprints)
    with workers_session(base, most, local=local, address=address) as ray:
        for blueprint in blueprints:
            with contextlib.closing(_workers(ray, blueprint, data, weights, begin)) as workers:
                found = train_pipeline(blueprint, workers, data.train, steps)
            rows.append((blueprint, compare(found, expected)))
            if not as_json:
                click.echo(_line(blueprint, rows[-1][1]), err=True)
    _show(rows, base, steps, "threads" if local else "Ray actors", as_json)
    return 0 if all(comparison.equal for _, comparison in rows) else 1


def _base(job: Path, overrides: tuple[str, ...], *, local: bool, address: str | None) -> tuple[JobSpec, JobData]:
    """Return the job with one stage, and its data. `pipeline: auto` is chosen first: it decides the rounding."""
    try:
        spec = load_job(job, overrides)
    except InvalidJob as error:
        with contextlib.suppress(InvalidJob):  # only its pipeline may be wrong: it is replaced
            return _alone(job, overrides)
        raise error from None
    if spec.pipeline.is_auto:
        data = load_data(spec)
        room = room_at_start(spec, local=local, address=address, most=None)
        spec, lines = chosen(data.spec, len(data.train), room, **data.for_plan)
        click.echo("\n".join(lines), err=True)
        alone = replace(settings_of(spec, n_workers=1), stages=1, workers=1, schedule="gpipe", partition="auto")
        return with_place_of_weights(with_settings(spec, alone)), data
    return _alone(job, overrides)


def _alone(job: Path, overrides: tuple[str, ...]) -> tuple[JobSpec, JobData]:
    base = load_job(job, [*overrides, "pipeline.workers=null"], stages=1, schedule="gpipe", partition="auto")
    data = load_data(base)
    return with_place_of_weights(data.spec), data


def _with(base: JobSpec, count: int, schedule: str) -> JobSpec:
    return base.replace(stages=count, schedule=schedule)


def _can_be_built(schedule: str, count: int, base: JobSpec) -> bool:
    fewest = fewest_micro_batches(schedule, default_workers(schedule, count))
    if base.training.micro_batches >= fewest:
        return True
    click.echo(f"{schedule:<17} {count} stages: left out, it needs {fewest} micro-batches", err=True)
    return False


def _stage_counts(text: str | None, model: ModelSpec) -> list[int]:
    n = len(model.network.ops)
    if text is None:
        return [count for count in (1, 2, 3, 4) if count <= n]
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        raise UserMistake(f"--stages: {text!r} is not a list of whole numbers such as 1,2,4") from None
    for count in counts:
        if not 1 <= count <= n:
            raise UserMistake(f"--stages: {count} stages for {n} {parts_name(model)}; from 1 to {n}")
    return counts


def _schedules(text: str) -> list[str]:
    names = list(SCHEDULES) if text == "all" else [part.strip() for part in text.split(",")]
    for name in names:
        if name not in (*SCHEDULES, AUTO):
            raise InvalidSchedule(f"--schedules: {name!r} is not one of {', '.join(SCHEDULES)}, {AUTO}, or all")
    return names


def _workers(
    ray: Any, blueprint: Blueprint, data: JobData, weights: int | None, begin: Mapping[str, Array] | None
) -> Workers:
    if ray is None:
        return LocalWorkers(blueprint, train=data.train, validation=data.validation, parameters=begin)
    return RayWorkers(ray, blueprint, fingerprint=data.fingerprint(), weights=weights)


def _line(blueprint: Blueprint, comparison: Comparison) -> str:
    verdict = "bitwise equal" if comparison.equal else f"DIFFERENT, first in {comparison.worst or 'the loss'}"
    return f"{blueprint.program.name:<17} {len(blueprint.bounds) - 1} stages: {verdict}"


def _show(rows: list[tuple[Blueprint, Comparison]], spec: JobSpec, steps: int, where: str, as_json: bool) -> None:
    if as_json:
        click.echo(
            json.dumps(
                [
                    {
                        "schedule": blueprint.program.name,
                        "stages": len(blueprint.bounds) - 1,
                        "workers": blueprint.n_workers,
                        "steps": steps,
                        "max_parameter_difference": c.parameters,
                        "max_gradient_difference": c.gradients,
                        "max_loss_difference": c.losses,
                        "equal": c.equal,
                    }
                    for blueprint, c in rows
                ]
            )
        )
        return
    table = Table(title=f"{spec.name}: {steps} steps on {where} against one process, {spec.precision}")
    for heading in (
        "schedule",
        "stages",
        "workers",
        "max |Δ| parameters",
        "max |Δ| gradients",
        "max |Δ| loss",
        "bitwise equal",
    ):
        table.add_column(heading, justify="left" if heading == "schedule" else "right")
    for blueprint, c in rows:
        table.add_row(
            blueprint.program.name,
            str(len(blueprint.bounds) - 1),
            str(blueprint.n_workers),
            *(f"{value:.3g}" for value in (c.parameters, c.gradients, c.losses)),
            "yes" if c.equal else f"NO ({c.worst or 'loss'})",
        )
    console().print(table)
