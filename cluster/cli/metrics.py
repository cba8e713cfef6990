"""`pipetrain metrics`: show the metrics of a job."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from cluster.cli.service_options import detaching, goes_on, job_argument, json_option, on_break, service_command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cluster.client import Client, Job
    from coordinator.train.rows import Row

_HEADINGS = ("step", "epoch", "loss", "accuracy", "validation", "accuracy", "samples/s", "bubble")


@click.command()
@job_argument
@click.option("-f", "--follow", is_flag=True, help="Continue to show new rows until the job has ended.")
@json_option("Print each row as a JSON object, as in metrics.jsonl, with its attempt.")
@service_command
def metrics(client: Client, job_id: str, follow: bool, as_json: bool) -> None:
    """Show the metrics of a job: a row for each step and for each evaluation.

    `step` is the number of updates made, including the one of this row. Steps and epochs count from 1. `loss` is the
    loss of that step alone; a loss that is a sum is shown per row of the data.
    """
    job = client.get(job_id)
    with detaching(lambda: goes_on(job.id) if not job.done else ""):
        if not as_json:
            click.echo(_line(_HEADINGS))
        for row in _rows(job, follow):
            click.echo(json.dumps({"attempt": row.attempt, **row.as_dict()}) if as_json else _line(_cells(row)))


def _rows(job: Job, follow: bool) -> Iterator[Row]:
    if not follow:
        yield from job.rows()
        return
    for update in job.watch(on_break=on_break):
        yield from update.rows


def _line(cells: tuple[str, ...]) -> str:
    return "  ".join(f"{cell:>10}" for cell in cells).rstrip()


def _cells(row: Row) -> tuple[str, ...]:
    from coordinator.texts import number, per_second, share
    from coordinator.train.rows import StepRow

    if not isinstance(row, StepRow):
        return (f"{row.step}", f"{row.epoch}", "", "", number(row.loss_per_row, ""), share(row.accuracy, 2, ""), "", "")
    speed = per_second(row.samples / row.seconds) if row.seconds else ""
    return (
        f"{row.step}",
        f"{row.epoch}",
        number(row.loss_per_row, ""),
        share(row.accuracy, 2, ""),
        "",
        "",
        speed,
        f"{row.bubble:.0%}",
    )
