"""`pipetrain list`: list the service's jobs, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from cluster.cli.service_options import service_command
from coordinator.queue.job_states import STATE_NAMES

if TYPE_CHECKING:
    from cluster.client import Client, Job

_LIMIT = 50
_MOST_FIGURES = 100  # the most jobs whose figures the command requests


@click.command()
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(STATE_NAMES, case_sensitive=False),
    help="List only jobs in this state; may be repeated.",
)
@click.option("--name", help="List only jobs of this name.")
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(1, 2**31 - 1),
    help=f"List at most N jobs; {_LIMIT} in a table by default.",
)
@click.option("--all", "everything", is_flag=True, help="List all jobs.")
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["table", "wide", "json", "yaml"]),
    default="table",
    show_default=True,
    help="json and yaml print the objects of `status --json`, of all jobs unless --limit is given.",
)
@service_command
def list(
    client: Client, states: tuple[str, ...], name: str | None, limit: int | None, everything: bool, form: str
) -> None:
    """List the service's jobs, newest first.

    DONE is the share of the steps that are done, LEFT the time for the rest at the mean pace so far. LOSS is the mean
    over the present epoch so far, VALIDATION the loss of the last evaluation; a loss that is a sum is shown per row.
    AGE is the time since the job was submitted. TIME is the time from its first start until now or its end, with lost
    attempts and times when the service was down.
    """
    as_data = form in ("json", "yaml")
    most = 0 if everything or (as_data and limit is None) else limit or _LIMIT
    jobs = client.list(states, name, limit=most + 1 if most and most < 2**31 - 1 else most)
    shown = jobs[:most] if most else jobs
    if as_data:
        _print_data(shown, form)
        return
    from cluster.cli.job_tables import left_of, print_jobs

    if not shown:
        click.echo("no jobs" if not (states or name) else "no such jobs", err=True)
        return
    running = [job.id for job in shown if job.state == "RUNNING"][:_MOST_FIGURES]
    left = left_of(shown, client.stats(*running) if running else {})
    print_jobs(shown, wide=form == "wide", left=left)
    if len(shown) < len(jobs):
        click.echo(f"{_how_many_more(client, states, name, len(shown))}; --all lists them", err=True)


def _print_data(jobs: Sequence[Job], form: str) -> None:
    documents = [job.as_dict() for job in jobs]
    if form == "json":
        import json

        click.echo(json.dumps(documents, indent=2))
        return
    from coordinator.job.yaml_text import write_yaml

    click.echo(write_yaml(documents), nl=False)


def _how_many_more(client: Client, states: tuple[str, ...], name: str | None, shown: int) -> str:
    if name is not None:  # the service counts by state only
        return "there are more"
    counts = client.cluster().jobs
    total = sum(count for state, count in counts.items() if not states or state in states)
    return f"{total - shown:,} more" if total > shown else "there are more"
