"""`pipetrain resume`: go on with a run from its newest checkpoint, with any number of stages and any schedule."""

from __future__ import annotations

from pathlib import Path

import click

from cluster.cli.options import set_option, where_options
from cluster.cli.train import perform
from cluster.run.resuming import find_checkpoint
from cluster.run.run_dir import RunDir, default_run_dir
from cluster.run.training import Run, Where
from stages.errors import NotEnoughResources, UserMistake


@click.command()
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN|CHECKPOINT")
@click.option("--stages", type=int, help="Go on with this many stages; the partition becomes auto.")
@click.option("--schedule", help="Go on with this schedule.")
@set_option
@where_options
@click.option("--force", is_flag=True, help="Start even if the plan needs more memory than a worker may use.")
@click.option("--json", "as_json", is_flag=True, help="Print each row as a JSON object and the result as the last one.")
def resume(
    run: Path,
    stages: int | None,
    schedule: str | None,
    overrides: tuple[str, ...],
    local: bool,
    address: str | None,
    force: bool,
    as_json: bool,
) -> int:
    """Go on with a run from its newest checkpoint, in the same run directory.

    RUN is a run directory; CHECKPOINT is one of the folders in its `checkpoints`, from which the run then goes on. The
    weights are bitwise those of a run that was never interrupted. Stages, schedule, workers, the number of epochs or
    steps and the learning rate may change; model, data, seed and batches may not.
    """
    if local and address:
        raise UserMistake("--local and --address exclude each other: choose threads here, or a Ray cluster")

    found = find_checkpoint(run, lambda text: click.echo(text, err=True))
    partition = "auto" if stages is not None else None
    spec = found.spec(overrides, stages=stages, schedule=schedule, partition=partition)
    prepared = Run.prepare(spec, Where(local=local, address=address), resume=found)
    if not force and (refusals := prepared.refusals()):
        raise NotEnoughResources("\n".join([*refusals, "`--force` starts the job nevertheless"]))
    if found.step >= prepared.steps_total:
        raise UserMistake(
            f"{found.place}: has all {prepared.steps_total} steps of the job; give more with --set training.epochs=N"
        )
    if found.run is None:
        directory = RunDir.create(default_run_dir(spec), prepared.spec)
    else:
        directory = RunDir.resume(found.run, prepared.spec, found.manifest.position)
    click.echo(f"going on after step {found.step} of {prepared.steps_total}", err=True)
    return perform(prepared, directory, local=local, address=address, as_json=as_json)
