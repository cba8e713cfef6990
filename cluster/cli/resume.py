"""`pipetrain resume`: go on with a run from its newest checkpoint, with any number of stages and any schedule."""

from __future__ import annotations

from pathlib import Path

import click

from cluster.cli.going_on import prepare_to_go_on
from cluster.cli.options import PathOrUrl, changes_of, grace_option, set_option, where_of, where_options
from cluster.cli.train import perform


@click.command()
@click.argument("run", type=PathOrUrl(), metavar="RUN|CHECKPOINT|URL")
@click.option("--stages", type=int, help="Go on with this many stages; the partition becomes auto.")
@click.option("--schedule", help="Go on with this schedule.")
@set_option
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    help="Go on in this new run directory, and leave the old one as it is.",
)
@where_options
@click.option("--force", is_flag=True, help="Start even if the plan needs more memory than a worker may use.")
@grace_option
@click.option("--json", "as_json", is_flag=True, help="Print each row as a JSON object and the result as the last one.")
def resume(
    run: Path,
    stages: int | None,
    schedule: str | None,
    overrides: tuple[str, ...],
    run_dir: Path | None,
    local: bool,
    address: str | None,
    force: bool,
    grace: float | None,
    as_json: bool,
) -> int:
    """Go on with a run from its newest checkpoint, in the same run directory.

    RUN is a run directory; CHECKPOINT is one of the folders in its `checkpoints`, from which the run then goes on; URL
    is that of a job's `checkpoint.to`, or of one checkpoint: it is fetched, and the run goes on in a new directory. The
    weights are bitwise those of a run that was never interrupted. Stages, schedule, workers, the number of epochs or
    steps and the learning rate may change; model, data, seed and batches may not.
    """
    where = where_of(local=local, address=address)
    changes = changes_of(overrides, stages=stages, schedule=schedule)
    prepared, directory = prepare_to_go_on(run, overrides, changes, where, run_dir=run_dir, force=force)
    return perform(prepared, directory, local=local, address=address, as_json=as_json, grace=grace)
