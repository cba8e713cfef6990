"""`pipetrain describe`: show everything about one job."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from cluster.cli.service_options import job_argument, json_option, service_command

if TYPE_CHECKING:
    from cluster.client import Client, Job, JobEvent, JobFigures


@click.command()
@job_argument
@json_option(
    "Print the object of `status --json` with more keys: document, files, traceback, plan, warnings, events, slow."
)
@service_command
def describe(client: Client, job_id: str, as_json: bool) -> None:
    """Show everything about a job: its state, its plan, its job file with all defaults, and its events.

    Warnings say why its network may learn nothing. While the job runs, and for a few minutes after its end, the command
    also shows the mean and the median time of the last steps, and why it is slow, if there is a clear cause.
    """
    from cluster.cli.slow import why_slow_there

    job = client.get(job_id)
    events = job.events()
    figures = job.stats()
    slow = None if figures is None else why_slow_there(figures.workers)
    if as_json:
        more = {"document": job.document, "files": job.files, "traceback": job.traceback, "plan": _plan(events)}
        warnings = [{"text": event.text, **event.details} for event in _warnings(events)]
        told = {"warnings": warnings, "slow": slow, "events": [event.as_dict() for event in events]}
        found = {**job.as_dict(), **more, **told}
        click.echo(json.dumps(found))
        return
    _print(job, events, slow, figures)


def _print(job: Job, events: list[JobEvent], slow: str | None, figures: JobFigures | None) -> None:
    from cluster.cli.job_facts import print_facts
    from cluster.cli.texts import clock, harmless, one_line
    from coordinator.job.yaml_text import write_yaml
    from coordinator.texts import step_time
    from coordinator.timing.durations import STEP_MEAN, STEP_MEDIAN

    print_facts(job)
    if figures is not None and STEP_MEAN in figures.latest:
        click.echo(f"{'step time':<12}{step_time(figures.latest[STEP_MEAN], figures.latest[STEP_MEDIAN])}")
    if slow is not None:
        click.echo(f"{'slow':<12}{one_line(slow)}")
    for event in _warnings(events):
        click.echo(f"{'warning':<12}{one_line(event.text)}")
    click.echo("\nplan")
    for name, value in _plan(events).items():
        for part in value if name == "data" else [value]:
            told = one_line(part) if isinstance(part, str) else json.dumps(part)
            click.echo(f"  {one_line(name).replace('_', ' '):<14} {told}")
    if not _plan(events):
        click.echo("  none yet: the plan is made when the job starts")
    for path, digest in job.files.items():
        click.echo(f"  uploaded       {one_line(path)} ({digest[:12]}…)")
    click.echo("\nevents")
    for event in events:
        life = f" (attempt {event.attempt})" if event.attempt > 1 else ""
        click.echo(f"  {clock(event.time)}  {one_line(event.kind):<11} {one_line(event.text)}{life}")
    if job.traceback:
        click.echo("\ntraceback")
        click.echo("".join(f"  {line}\n" for line in harmless(job.traceback).splitlines()), nl=False)
    click.echo("\njob file")
    click.echo("".join(f"  {line}\n" for line in harmless(write_yaml(job.document)).splitlines()), nl=False)


def _plan(events: list[JobEvent]) -> dict[str, Any]:
    """Return the details of the last start: what was read, stages, workers, schedule, micro-batches, steps. Empty if
    there was none."""
    starts = [event for event in events if event.kind == "starting"]
    if not starts:
        return {}
    data = [event.text for event in events if event.kind == "data" and event.attempt == starts[-1].attempt]
    return {**({"data": data} if data else {}), **starts[-1].details}


def _warnings(events: list[JobEvent]) -> list[JobEvent]:
    """Return each kind of warning once: a later attempt of the same job gives the same ones again."""
    return list({event.details.get("code"): event for event in events if event.kind == "warning"}.values())
