"""`pipetrain chaos`: faults on request, and soaks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cluster.cli.options import NumberRange, job_options, read_job
from cluster.cli.run_or_job import run_argument
from coordinator.chaos.slowing import SLOW_SECONDS, SLOW_STEPS


@click.group()
def chaos() -> None:
    """Let workers of a run fail on purpose, and see that it leaves no trace.

    RUN is the run directory of a `train` that is running, or a RUNNING job of the service, by its id or name. A fault
    strikes before the action --at of step --step, spelled as in a schedule's .csv: 2B5 is the backward pass of stage
    2 for micro-batch 5. It may also be `update`, `evaluation` or `checkpoint`.
    """


_KINDS = {
    "kill": "End a worker's process at once (SIGKILL).",
    "stop": "Stop a worker's process (SIGSTOP), so that it hangs.",
    "slow": "Slow a worker down: it computes for --seconds before each action, in --steps steps.",
    "partition": "Cut a worker off: every array that it sends or is sent is lost.",
    "oom": "Let a worker run out of memory.",
    "corrupt": "Flip a bit in the newest checkpoint, in a layer of the worker.",
    "disk-full": "Let the disk be full when the worker writes its next checkpoint.",
}


def _command(kind: str) -> None:
    def command(
        run: str,
        address: str | None,
        home: Path | None,
        worker: int,
        at: str | None,
        step: int | None,
        seconds: float = SLOW_SECONDS,
        steps: int = SLOW_STEPS,
    ) -> None:
        point: dict[str, Any] = {"worker": worker, "at": at, "step": step, "seconds": seconds, "steps": steps}
        folder = Path(run)
        if folder.exists() or os.sep in run:
            from cluster.chaos.asking import inject_fault

            click.echo(inject_fault(folder, kind, **point))
            return
        from cluster.client import Client

        with Client(address, home=home) as client:
            click.echo(client.get(run).inject_fault(kind, **point))

    decorators: list[Callable[[Any], Any]] = [
        run_argument,
        click.option("--worker", type=click.IntRange(0), required=True, metavar="K", help="The worker, from 0."),
        click.option(
            "--at",
            metavar="ACTION",
            help="Before this action; by default before the step's first one.",
        ),
        click.option(
            "--step",
            type=click.IntRange(1),
            metavar="N",
            help="In this step, which must be still to come; by default the next one that has the action.",
        ),
    ]
    if kind == "slow":
        decorators += [
            click.option("--seconds", type=NumberRange(0, 3600), default=SLOW_SECONDS, show_default=True),
            click.option("--steps", type=click.IntRange(1), default=SLOW_STEPS, show_default=True),
        ]
    function: Any = command
    for decorator in reversed(decorators):
        function = decorator(function)
    chaos.command(kind, help=_KINDS[kind])(function)


for _kind in _KINDS:
    _command(_kind)


@chaos.command()
@job_options()
@click.option("--faults", type=click.IntRange(1, 100_000), default=50, show_default=True, help="How many faults.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random campaign.")
@click.option("--dry-run", is_flag=True, help="Only print the campaign.")
@click.option("--run-dir", type=click.Path(path_type=Path), help="Of both runs; runs/NAME-soak-TIME by default.")
@click.option("--address", metavar="RAY", help="Use this running Ray cluster instead of starting a Ray.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def soak(
    job: Path,
    stages: int | None,
    schedule: str | None,
    overrides: tuple[str, ...],
    faults: int,
    seed: int,
    dry_run: bool,
    run_dir: Path | None,
    address: str | None,
    as_json: bool,
) -> int:
    """Train JOB.yaml undisturbed, then with a random campaign of faults, and compare.

    Weights, optimizer's vectors and rows must be bitwise the same, and nothing may be left: no process, socket, shared
    memory or file. Exits with 1 otherwise. The campaign follows from --seed and the job. `recovery.max_restarts` is
    raised by twice the number of faults; a job without `checkpoint` writes 20 of them.
    """
    import json

    from cluster.chaos.soak import Soak
    from cluster.cli.chaos_texts import campaign_lines, report_lines
    from cluster.cli.texts import harmless

    prepared = Soak(
        read_job(job, overrides, stages=stages, schedule=schedule), faults=faults, seed=seed, address=address
    )
    if dry_run:
        for line in campaign_lines(prepared.plan):
            click.echo(line)
        return 0
    report = prepared.run(run_dir, lambda text: click.echo(harmless(text), err=True))
    if as_json:
        click.echo(json.dumps(report.document()))
    else:
        for line in report_lines(report):
            click.echo(harmless(line))
    return 0 if report.ok else 1
