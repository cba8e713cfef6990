"""`pipetrain tune`: find the settings with which a job's steps are shortest on this machine."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import click

from cluster.cli.options import NumberRange, read_job, set_option
from cluster.cli.output import console
from cluster.cli.texts import harmless
from cluster.cli.tune_texts import as_document, lines_to_use, table_of_tried
from cluster.data.sources import load_data
from cluster.run.tuned_file import require_no_other_file, schedule_file, write_tuned
from cluster.run.tuning import (
    MeasuredJob,
    candidates_here,
    contest,
    memory_here,
    most_workers,
    own_program,
    times_counted,
    times_here,
    to_measure,
)
from coordinator.job.nearest import did_you_mean
from coordinator.plan.candidate_memory import those_that_fit
from coordinator.plan.candidates import Candidate
from coordinator.plan.contest import Budget, Trial, winner
from coordinator.plan.settings import NAMES
from coordinator.plan.why_fastest import why_fastest
from coordinator.schedules.csv_format import write_csv
from coordinator.texts import counted
from coordinator.timing.machine_times import MachineTimes
from stages.errors import HostFailed, JobFailed, UserMistake

_FITTING = 24
"""So many of the best predicted settings may take part in the contest."""
_SHARE = 0.1
"""Of the time for measuring layers and messages before steps are predicted."""

_SEARCHED = (
    "this schedule was searched for the times measured here; --output writes it as a .csv, and a job that says auto "
    "searches for usual times instead"
)


@click.command()
@click.argument("job", type=click.Path(path_type=Path), metavar="JOB.yaml")
@set_option
@click.option(
    "--workers", type=click.IntRange(1), help="The most workers; by default as many as this machine has CPUs for."
)
@click.option(
    "--keep",
    "kept",
    default="",
    metavar="NAMES",
    help=f"Settings to leave as the job has them, separated by commas: {', '.join(NAMES)}.",
)
@click.option(
    "--seconds",
    type=NumberRange(0, 86_400),
    default=60.0,
    show_default=True,
    help="About how long to measure; 0 only predicts.",
)
@click.option("--rounds", type=click.IntRange(1), help="Measure at most this many rounds of turns in each heat.")
@click.option("--local", is_flag=True, help="Measure threads of this process, as `train --local` uses them.")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the job with the settings that were found to this file, with the comments of JOB.yaml if possible.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def tune(
    job: Path,
    overrides: tuple[str, ...],
    workers: int | None,
    kept: str,
    seconds: float,
    rounds: int | None,
    local: bool,
    output: Path | None,
    as_json: bool,
) -> int:
    """Find the stages, workers, schedule, cut, micro-batches, weight-gradient groups and recomputation with which the
    steps of JOB.yaml are shortest on this machine.

    All settings whose workers have enough memory are predicted. The best ones that differ, and the job's own, are then
    trained in turns, in heats with fewer and fewer of them. Nothing of these steps is kept. Another number of
    micro-batches, or another group, changes the rounding of the weights; --keep micro_batches,weight_grad_group keeps
    every bit. Ctrl-C ends the measurement and shows what is known so far.
    """
    spec = read_job(job, overrides, stages=None, schedule=None)
    if output is not None:
        require_no_other_file(output)
    names = _kept(kept)
    data = load_data(spec)
    measured, most = to_measure(data), most_workers(workers, spec.resources.cpus_per_worker)
    again, memory_of = "recompute" not in names, memory_here(data)
    found, own = candidates_here(measured, most, names, times_counted(measured.spec))
    if seconds and not local:
        if spec.resources.memory_per_worker is not None:  # does anything fit at all?
            those_that_fit(found, 1, memory_of, recomputes=again, compares=False)
        found, own = candidates_here(measured, most, names, _times(measured, most, seconds, quiet=as_json))
    ranked, refused = those_that_fit(found, _FITTING, memory_of, recomputes=again)
    own = None if own is None else memory_of(own)
    if own is not None and own.refusal is not None:
        refused, own = [*refused, own], None
    trials, stopped = list[Trial](), False
    if seconds:
        budget = Budget(seconds=seconds, rounds=rounds)
        trials, stopped = _measured(measured, ranked, own, budget, most=most, local=local, quiet=as_json)
    best = winner(trials, found.own)
    chosen = ranked[0] if best is None else best.candidate
    why = _why_predicted(ranked) if best is None else why_fastest(best, trials)
    program = own_program(measured, chosen)
    if as_json:
        document = as_document(spec, chosen, why, trials, ranked, refused, found.n_predicted)
        document["schedule_csv"] = None if program is None else write_csv(program)
        click.echo(json.dumps(document, indent=2))
    else:
        console().print(table_of_tried(spec.name, trials, ranked, refused))
        click.echo(f"predicted {counted(found.n_predicted, 'choice')} of settings, measured {len(trials)}")
        click.echo(harmless(f"chosen: {why}"))
        click.echo("\n".join(lines_to_use(spec, chosen.settings)))
        if program is not None and output is None:
            click.echo(_SEARCHED)
    failed = [trial for trial in trials if trial.failed]
    if best is None and failed and not stopped:
        raise JobFailed(f"nothing could be measured: {failed[0].candidate.settings} {failed[0].dropped}")
    if output is not None:
        kept_text = write_tuned(job, spec, chosen.settings, output, program)
        written = f"{output} is" if program is None else f"{output} and its schedule {schedule_file(output)} are"
        text = f"{written} written" + ("" if kept_text else ", without the comments of the job file")
        click.echo(harmless(text), err=True)
    return 130 if stopped else 0


def _kept(text: str) -> frozenset[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in NAMES:
            raise UserMistake(f"--keep: {name!r} is not one of {', '.join(NAMES)}{did_you_mean(name, NAMES)}")
    return frozenset(names)


def _times(job: MeasuredJob, most: int, seconds: float, *, quiet: bool) -> MachineTimes:
    """Return the measured times from which steps are predicted; the counted ones if measuring fails."""
    if not quiet:
        click.echo("measuring layers and messages", err=True)
    try:
        return times_here(job, most, _SHARE * seconds)
    except HostFailed as error:
        click.echo(harmless(f"note: {error}; steps are predicted from counted operations"), err=True)
        return times_counted(job.spec)


def _measured(
    job: MeasuredJob,
    ranked: list[Candidate],
    own: Candidate | None,
    budget: Budget,
    *,
    most: int,
    local: bool,
    quiet: bool,
) -> tuple[list[Trial], bool]:
    """Return what was measured, and whether Ctrl-C ended it."""

    def notify(text: str) -> None:
        if not quiet:
            click.echo(text, err=True)

    trials = list[Trial]()
    with contextlib.suppress(KeyboardInterrupt):
        may_win = own is None or own.settings.workers <= most
        with contest(job, ranked, own, budget, own_may_win=may_win, local=local, notify=notify) as running:
            trials = running.trials
            running.run()
        return trials, False
    notify("stopped")
    return trials, True


def _why_predicted(ranked: list[Candidate]) -> str:
    return f"{ranked[0].settings}: its predicted step is the shortest; nothing was measured"
