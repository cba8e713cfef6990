"""Prepares a run that goes on from a checkpoint, for `resume` and `train --resume`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from cluster.checkpoints.at_url import fetch_newest
from cluster.checkpoints.folder import read_manifest
from cluster.run.earlier_run import require_not_in_use
from cluster.run.resuming import Resume, find_checkpoint
from cluster.run.run_dir import RunDir, default_run_dir
from cluster.run.training import Run, Where
from coordinator import run_files
from coordinator.job.spec import JobSpec
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
    """Return the run that goes on from the run directory or checkpoint `path`, and its open run directory. A checkpoint
    at a URL is fetched into a new run directory.

    That is the directory that has the checkpoint or, if it is given, the new one `run_dir`; then nothing in the old one
    changes. Raises UserMistake; then nothing has changed.
    """
    if not isinstance(path, Path):
        return _from_url(
            str(path), overrides, replacements, where, run_dir=run_dir, force=force, trace_steps=trace_steps
        )
    found = find_checkpoint(path, _note)
    into = found.run if run_dir is None or run_dir.absolute() == found.run else None
    if into is not None:
        require_not_in_use(into)  # before minutes of reading; RunDir.resume locks it
    prepared = _prepared(found, found.spec(overrides, **replacements), where, force=force, trace_steps=trace_steps)
    if into is None:
        directory = RunDir.create(run_dir or default_run_dir(prepared.spec), prepared.spec, notify=_note)
    else:
        directory = RunDir.resume(into, prepared.spec, found.manifest.position)
    click.echo(f"going on after step {found.step} of {prepared.steps_total}", err=True)
    return prepared, directory


def _from_url(
    url: str,
    overrides: Sequence[str],
    replacements: Mapping[str, Any],
    where: Where,
    *,
    run_dir: Path | None,
    force: bool,
    trace_steps: int,
) -> tuple[Run, RunDir]:
    """See prepare_to_go_on. The checkpoint is checked on its way here, and moves into the run directory."""
    fetched = fetch_newest(url, run_dir or Path("runs", "fetched"), _note)
    try:
        found = Resume(fetched, read_manifest(fetched), None)
        spec = found.spec(overrides, **replacements)
        path = (run_dir or default_run_dir(spec)).absolute()
        found = replace(found, place=path / run_files.CHECKPOINTS / fetched.name)
        prepared = _prepared(found, spec, where, force=force, trace_steps=trace_steps)
        directory = RunDir.create(path, prepared.spec, notify=_note)
        found.place.parent.mkdir(exist_ok=True)
        fetched.rename(found.place)
    finally:
        shutil.rmtree(fetched.parent, ignore_errors=True)
    click.echo(f"going on after step {found.step} of {prepared.steps_total}", err=True)
    return prepared, directory


def _prepared(found: Resume, spec: JobSpec, where: Where, *, force: bool, trace_steps: int) -> Run:
    prepared = Run.prepare(spec, where, resume=found, trace_steps=trace_steps)
    if not force and (refusals := prepared.refusals()):
        raise NotEnoughResources("\n".join([*refusals, "`--force` starts the job nevertheless"]))
    if found.step >= prepared.steps_total:
        raise UserMistake(
            f"{found.place}: has all {prepared.steps_total} steps of the job; give more with --set training.epochs=N"
        )
    return prepared


def _note(text: str) -> None:
    click.echo(text, err=True)
