"""Prepares a run that goes on from a checkpoint, for `resume` and `train --resume`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from cluster.run.earlier_run import require_not_in_use
from cluster.run.resuming import find_checkpoint
from cluster.run.run_dir import RunDir, default_run_dir
from cluster.run.training import Run, Where
from stages.errors import NotEnoughResources, UserMistake


def prepare_to_go_on(
    path: Path,
    overrides: Sequence[str],
    replacements: Mapping[str, Any],
    where: Where,
    *,
    run_dir: Path | None,
    force: bool,
    trace_steps: int = 0,
) -> tuple[Run, RunDir]:
    """Return the run that goes on from the run directory or checkpoint `path`, and its open run directory.

    That is the directory that has the checkpoint or, if it is given, the new one `run_dir`; then nothing in the old one
    changes. Raises UserMistake; then nothing has changed.
    """
    found = find_checkpoint(path, _note)
    into = found.run if run_dir is None or run_dir.absolute() == found.run else None
    if into is not None:
        require_not_in_use(into)  # before minutes of reading; RunDir.resume locks it
    spec = found.spec(overrides, **replacements)
    prepared = Run.prepare(spec, where, resume=found, trace_steps=trace_steps)
    if not force and (refusals := prepared.refusals()):
        raise NotEnoughResources("\n".join([*refusals, "`--force` starts the job nevertheless"]))
    if found.step >= prepared.steps_total:
        raise UserMistake(
            f"{found.place}: has all {prepared.steps_total} steps of the job; give more with --set training.epochs=N"
        )
    if into is None:
        directory = RunDir.create(run_dir or default_run_dir(spec), prepared.spec, notify=_note)
    else:
        directory = RunDir.resume(into, prepared.spec, found.manifest.position)
    click.echo(f"going on after step {found.step} of {prepared.steps_total}", err=True)
    return prepared, directory


def _note(text: str) -> None:
    click.echo(text, err=True)
