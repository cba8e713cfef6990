"""Build the models of /api from the service's objects. These functions do no I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cluster.client.snapshot import JobSnapshot
from cluster.dashboard import models
from cluster.dashboard.schedule_view import DryRun, Question
from cluster.service.entry import JobView
from cluster.service.job_stats import JobStats
from cluster.service.messages import job_message
from cluster.service.survival import DAMAGED, NOT_SAVED, SAVED, Survival
from coordinator.timing.accounts import as_seconds
from stages.actions import Action


def job_model(view: JobView) -> models.Job:
    """Return a job with the keys of `pipetrain status --json`."""
    return models.Job(**JobSnapshot(job_message(view)).as_dict())


def rows_model(stats: JobStats, names: Sequence[str] = ()) -> models.Rows:
    """Return the series of these names, or all if there are no names."""
    found = {}
    for name, series in stats.series.items():
        if not names or name in names:
            points = series.points
            found[name] = models.Points(
                steps=[step for step, _ in points],
                values=[value if math.isfinite(value) else None for _, value in points],
            )
    return models.Rows(attempt=stats.attempt, series=found)


def rows_csv(rows: models.Rows, first: int, last: int) -> str:
    """Return CSV with a line for each step from `first` to `last` at which any series has a point."""
    names = list(rows.series)
    columns = [dict(zip(points.steps, points.values, strict=True)) for points in rows.series.values()]
    steps = sorted({step for column in columns for step in column if first <= step <= last})
    lines = [",".join(["step", *names])]
    for step in steps:
        values = (column.get(step) for column in columns)
        lines.append(",".join([str(step), *("" if value is None else repr(value) for value in values)]))
    return "\n".join(lines) + "\n"


def accounts_model(stats: JobStats, placement: Sequence[int]) -> models.AttemptAccounts | None:
    """Return the accounts up to the last step; None before the first step, or if `placement` is empty. `placement[s]`
    is the worker of stage s."""
    line = stats.accounts
    if line is None or len(placement) != len(line["stage_us"]):
        return None
    seconds = as_seconds(line)
    predicted = line["predicted"]
    return models.AttemptAccounts(
        attempt=stats.attempt,
        step=line["step"],
        ended=line["ended"],
        stages=[
            models.StageAccount(
                stage=stage,
                worker=placement[stage],
                seconds=by_kind,
                bubble=line["bubble"][stage],
                bubble_predicted=None if predicted is None else predicted[stage],
            )
            for stage, by_kind in enumerate(seconds["stages"])
        ],
        workers=[
            models.WorkerAccount(worker=worker, wall_seconds=line["wall_us"][worker] / 1e6, seconds=by_kind)
            for worker, by_kind in enumerate(seconds["workers"])
        ],
        links=[models.Link(sender=a, receiver=b, messages=n, bytes=size) for a, b, n, size in line["links"]],
    )


def survival_model(survival: Survival) -> models.Survival:
    """Return the model of a job's checkpoints and recoveries."""
    return models.Survival(
        checkpoints=[
            models.SavedCheckpoint(
                step=one.step, time=one.time, bytes=one.n_bytes, seconds=one.seconds, stall_seconds=one.stall_seconds
            )
            for one in survival.checkpoints
        ],
        written=survival.results[SAVED],
        failed=survival.results[NOT_SAVED],
        damaged=survival.results[DAMAGED],
        losses=[models.LostWorker(**asdict(one)) for one in survival.losses],
        faults=[models.StruckFault(**one._asdict()) for one in survival.faults],
        lost=sum(survival.lost.values()),
        recoveries=survival.recoveries,
        recovery_seconds=survival.recovery_seconds,
        steps_again=survival.steps_again,
    )


def timeline_model(content: Mapping[str, Any]) -> models.Timeline:
    """Return the model of a timeline.json."""
    return models.Timeline(
        **{key: content[key] for key in ("attempt", "step", "zero", "seconds", "memory", "workers")},
        actions=_actions(content["actions"]),
        predicted=_actions(content["predicted"]),
    )


def schedule_model(question: Question, found: DryRun) -> models.Schedule:
    """Return the model of a schedule's dry run."""
    timed, peaks = found.timed, found.kept
    table, bubbles = timed.table, timed.bubbles
    return models.Schedule(
        schedule=question.schedule,
        stages=table.n_stages,
        workers=table.n_workers,
        micro_batches=table.n_micro_batches,
        makespan=timed.makespan,
        bubble=timed.bubble,
        bubble_rate=timed.bubble_rate,
        papers_bubble=found.papers_bubble,
        peak_alive=max(peaks.together),
        by_stage=[
            models.ScheduleStage(stage=stage, worker=worker, peak_alive=peaks.alive[stage], bubble=bubbles[worker])
            for stage, worker in enumerate(table.placement)
        ],
        actions=[(worker, str(action), start, end) for worker, action, start, end in found.spans()],
    )


def _actions(actions: Sequence[Sequence[Any]]) -> list[models.TimedAction]:
    found = []
    for worker, text, start, end in actions:
        action = Action.parse(text)
        found.append(
            models.TimedAction(
                worker=worker,
                stage=action.stage,
                kind=action.kind.value,
                micro_batch=action.micro_batch,
                start_us=start,
                end_us=end,
            )
        )
    return found
