"""`pipetrain train`: train a job file, show the progress, and write the run directory."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict
from pathlib import Path

import click

from cluster.checkpoints.folder import CheckpointFolder
from cluster.cli.end_signals import NOT_SAVED, EndSignals
from cluster.cli.going_on import prepare_to_go_on
from cluster.cli.options import (
    PathOrUrl,
    changes_of,
    grace_option,
    job_options,
    read_job,
    track_option,
    where_of,
    where_options,
)
from cluster.cli.progress import Header, RunDisplay, make_progress
from cluster.run.run_dir import RunDir, default_run_dir
from cluster.run.training import Run, RunResult
from cluster.run.why_slow import why_slow_of
from coordinator.texts import counted, step_time, text_measures
from coordinator.timing.durations import STEP_MEAN, STEP_MEDIAN, Durations
from coordinator.train.rows import StepRow
from stages.errors import NotEnoughResources, UserMistake


@click.command()
@job_options(required=False)
@click.option(
    "--resume",
    type=PathOrUrl(),
    metavar="RUN|CHECKPOINT|URL",
    help="Go on with this run, with its job instead of JOB.yaml: the same as `pipetrain resume`.",
)
@click.option("--run-dir", type=click.Path(path_type=Path), help="The run directory; runs/NAME-TIME by default.")
@click.option(
    "--overwrite", is_flag=True, help="Remove the run that --run-dir already has; files that no run wrote stay."
)
@where_options
@click.option("--force", is_flag=True, help="Start even if the plan needs more memory than a worker may use.")
@click.option(
    "--trace",
    "trace_steps",
    type=click.IntRange(0),
    default=0,
    metavar="STEPS",
    help="Record the first STEPS steps in trace.json in the run directory.",
)
@grace_option
@track_option
@click.option("--json", "as_json", is_flag=True, help="Print each row as a JSON object and the result as the last one.")
def train(
    job: Path | None,
    resume: Path | None,
    stages: int | None,
    schedule: str | None,
    overrides: tuple[str, ...],
    run_dir: Path | None,
    overwrite: bool,
    local: bool,
    address: str | None,
    force: bool,
    trace_steps: int,
    grace: float | None,
    tracks: tuple[str, ...],
    as_json: bool,
) -> int:
    """Train JOB.yaml and write a run directory.

    Ctrl-C, SIGTERM and SIGUSR1 end the training after the steps in progress, and save a checkpoint and the weights
    within the grace; a second Ctrl-C ends it at once. If the run in --run-dir ended before its first step, the
    directory is used again.
    """
    where = where_of(local=local, address=address)
    if resume is not None:
        _require_alone(job, overwrite=overwrite)
        changes = changes_of(overrides, stages=stages, schedule=schedule, tracks=tracks)
        going_on = prepare_to_go_on(
            resume, overrides, changes, where, run_dir=run_dir, force=force, trace_steps=trace_steps
        )
        return perform(*going_on, local=local, address=address, as_json=as_json, grace=grace)
    if job is None:
        raise click.UsageError("Missing argument 'JOB.yaml'", click.get_current_context())
    spec = read_job(job, overrides, stages=stages, schedule=schedule, tracks=tracks)
    path = run_dir or default_run_dir(spec)
    prepared = Run.prepare(spec, where, trace_steps=trace_steps)
    if not force and (refusals := prepared.refusals()):
        raise NotEnoughResources("\n".join([*refusals, "`--force` starts the job nevertheless"]))
    directory = RunDir.create(path, prepared.spec, overwrite=overwrite, notify=lambda text: click.echo(text, err=True))
    return perform(prepared, directory, local=local, address=address, as_json=as_json, grace=grace)


def _require_alone(job: Path | None, *, overwrite: bool) -> None:
    """Raise UserMistake if --resume comes with what contradicts it."""
    if job is not None:
        raise UserMistake(
            f"{job}: --resume goes on with the job of the run; leave out the job file, and change the job with --set"
        )
    if overwrite:
        raise UserMistake("--overwrite removes the run with which --resume goes on; leave out one of them")


def perform(
    prepared: Run, directory: RunDir, *, local: bool, address: str | None, as_json: bool, grace: float | None = None
) -> int:
    """Train with progress on the terminal, and show the result. Returns the exit code."""
    prepared.grace_s = prepared.grace_s if grace is None else grace
    signals = EndSignals(prepared)
    try:
        with make_progress(_header(prepared, local=local), as_json=as_json) as progress:
            for line in prepared.data.said:
                progress.note(line)
            durations = Durations()
            result = _train(prepared, directory, progress, signals, durations)
    except KeyboardInterrupt:
        return _ended_at_once(prepared, directory, signals)
    except UserMistake:
        if prepared.steps_done == 0:  # the same command must work when it is tried again
            directory.discard()
        raise
    finally:
        directory.close()
    if result.steps == 0 and result.stopped:
        directory.discard()
    own_host = len(os.sched_getaffinity(0)) if address is None else None
    slow = why_slow_of(directory.last_account, prepared.blueprint.program.placement, own_host)
    _show_result(result, directory.path, slow, durations, as_json)
    code = signals.exit_code(result)
    if code == NOT_SAVED:
        click.echo(_not_saved(directory.path, result.steps, result.checkpoint), err=True)
    return code


def _ended_at_once(run: Run, directory: RunDir, signals: EndSignals) -> int:
    """Say what is saved of a run that was ended without waiting for it; return the exit code."""
    newest = max(CheckpointFolder(directory.checkpoints).steps(), default=None)
    if run.steps_done == 0:
        directory.discard()  # the same command must work when it is tried again
    click.echo("stopped", err=True)
    if run.steps_done == (newest or 0):
        return signals.code_if_saved
    click.echo(_not_saved(directory.path, run.steps_done, newest), err=True)
    return NOT_SAVED


def _not_saved(path: Path, steps: int, newest: int | None) -> str:
    if newest is None:
        return f"not saved: {path} has no checkpoint of the {counted(steps, 'step')} made"
    lost = counted(steps - newest, "step")
    return f"not saved: the last {lost}; `pipetrain resume {path}` goes on from the checkpoint of step {newest}"


def _header(run: Run, *, local: bool) -> Header:
    blueprint = run.blueprint
    bounds = zip(blueprint.bounds, blueprint.bounds[1:], strict=False)
    cut = " ".join(f"{a}–{b - 1}" if b - a > 1 else f"{a}" for a, b in bounds)
    title = (
        f"{run.spec.name}: {counted(len(blueprint.bounds) - 1, 'stage')} (layers {cut}) on "
        f"{counted(blueprint.n_workers, 'worker')}, {blueprint.program.name}, "
        f"{counted(blueprint.program.n_micro_batches, 'micro-batch')}"
    )
    return Header(
        title,
        run.steps_total,
        placement=blueprint.program.placement,
        limit_bytes=None if local else run.spec.resources.memory_per_worker,
        one_process=local,
    )


def _train(run: Run, directory: RunDir, progress: RunDisplay, signals: EndSignals, durations: Durations) -> RunResult:
    def on_start(places: object) -> None:
        signals.begin(progress.note)
        progress.started()

    run.warn = progress.note
    with signals, contextlib.closing(run.rows(directory, on_start)) as rows:
        laid_out = run.blueprint
        for row in rows:
            if run.blueprint is not laid_out:
                laid_out = run.blueprint
                progress.lay_out(laid_out.program.placement)
            progress.row(row)
            if isinstance(row, StepRow):
                durations.add(row.seconds / (row.steps or 1), row.steps or 1)
    assert run.result is not None, "rows() ended without an error"
    return run.result


def _show_result(result: RunResult, path: Path, slow: str | None, durations: Durations, as_json: bool) -> None:
    evaluation = result.last_evaluation
    if as_json:
        shown = {
            "kind": "result",
            "state": "stopped" if result.stopped else "finished",
            "run_dir": str(path) if result.steps else None,
            "saved": result.saved,
            "checkpoint": result.checkpoint,
            "step": result.steps,
            "steps_total": result.steps_total,
            "loss": result.loss,
            "validation_loss": None if evaluation is None else evaluation.loss_per_row,
            "validation_accuracy": None if evaluation is None else evaluation.accuracy,
            "validation_perplexity": None if evaluation is None else evaluation.perplexity,
            "validation_bits_per_byte": None if evaluation is None else evaluation.bits_per_byte,
            STEP_MEAN: durations.mean,
            STEP_MEDIAN: durations.median,
            "slow": slow,
            "warnings": [asdict(warning) for warning in result.warnings],
        }
        click.echo(json.dumps(shown))
        return
    if result.steps == 0:
        click.echo("stopped before the first step: nothing was saved, and there is no run directory")
        return
    parts = [f"{'stopped' if result.stopped else 'finished'} at step {result.steps} of {result.steps_total}"]
    if evaluation is None and result.loss is not None:
        parts.append(f"mean loss {result.loss:.4g}")
    if evaluation is not None:
        parts.append(f"validation loss {evaluation.loss_per_row:.4g}")
        parts += text_measures(evaluation.perplexity, evaluation.bits_per_byte)
        if evaluation.accuracy is not None:
            parts.append(f"validation accuracy {evaluation.accuracy:.2%}")
    if durations.mean is not None and durations.median is not None:
        parts.append(f"{step_time(durations.mean, durations.median)} a step")
    click.echo(f"{', '.join(parts)}\nrun directory: {path}")
    if slow is not None:
        click.echo(f"slow: {slow}", err=True)
