"""Reads from a run directory how long its steps took: for `plan --compare`."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from coordinator import run_files
from coordinator.job.spec import JobSpec
from coordinator.plan.partition import Bounds
from coordinator.timing.step_comparison import MeasuredSteps, measured_steps
from stages.errors import UserMistake

_BEGIN = ("starting", "laid out anew")  # events that have a placement
_LEAST_STEPS = 3


@dataclass(frozen=True, slots=True)
class RecordedSteps:
    """The steps of a run's last layout: their mean by cause, and the median seconds; None if rows of several steps
    were joined (`training.log_every`). Steps with another number of rows than asked for are left out of both, see
    `measured_steps`.

    `cores` are those of the first worker's host, 0 if the run did not say so; `host_of[w]` is the number of worker w's
    host, empty if the workers were threads.
    """

    bounds: Bounds
    placement: tuple[int, ...]
    steps: MeasuredSteps
    median: float | None
    cores: int
    host_of: tuple[int, ...]


def require_run(folder: Path) -> None:
    """Raise UserMistake if the folder is no run directory."""
    for name in (run_files.JOB, run_files.EVENTS):
        if not (folder / name).is_file():
            raise UserMistake(f"--compare: {folder} is no run directory: it has no {name}")


def recorded_steps(folder: Path, rows: int) -> RecordedSteps:
    """Return the steps of a run whose batches have `rows` rows. Raises UserMistake if the folder has none."""
    require_run(folder)
    events = list(_lines(folder / run_files.EVENTS))
    layout = next((event for event in reversed(events) if event.get("event") in _BEGIN), None)
    lines = _of_last_layout(list(_lines(folder / run_files.ACCOUNTS)))
    if layout is None or len(lines) < _LEAST_STEPS or lines[-1]["step"] - lines[1]["step"] < 1:
        raise UserMistake(f"--compare: {folder} has made too few steps to be compared")
    placement = tuple(layout["placement"])
    if len(lines[-1]["stage_us"]) != len(placement) or lines[-1].get("ended", math.inf) < _when(layout):
        raise UserMistake(f"--compare: {folder} has made no step in its last layout")
    # without the first line, whose steps allocated memory, and the last, which may have the time after the last step
    logged = [row for row in _lines(folder / run_files.METRICS) if "seconds" in row and "samples" in row]
    lines = lines[1:-1] if len(lines) > _LEAST_STEPS else lines[1:]
    steps = measured_steps(lines, placement, _of_another_size(logged, rows))
    if steps is None:
        raise UserMistake(f"--compare: {folder} has made too few steps to be compared")
    started = [event for event in events if event.get("event") == "started"]
    workers = started[-1]["workers"] if started else []
    nodes = [worker.get("node") for worker in workers]
    host_of = tuple(sorted(set(nodes), key=nodes.index).index(node) for node in nodes)
    cores = workers[0].get("cores", 0) if workers else 0
    return RecordedSteps(tuple(layout["bounds"]), placement, steps, _median(logged, rows), cores, host_of)


def laid_out_as(recorded: RecordedSteps, spec: JobSpec) -> JobSpec:
    """Return the run's job with the layout that it had at its end."""
    bounds, pipeline = recorded.bounds, spec.pipeline
    changes: dict[str, object] = {"stages": len(bounds) - 1, "partition": [b - a for a, b in pairwise(bounds)]}
    if pipeline.stages == "auto" or pipeline.n_workers != max(recorded.placement) + 1:
        changes["workers"] = max(recorded.placement) + 1
    return spec.replace(**changes)


def _of_last_layout(lines: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the last lines whose totals grow: those of a new layout begin at 0."""
    begin = 0
    for place, (before, after) in enumerate(pairwise(lines), 1):
        if len(before["wall_us"]) != len(after["wall_us"]) or after["wall_us"][0] < before["wall_us"][0]:
            begin = place
    return lines[begin:]


def _when(event: Mapping[str, Any]) -> float:
    """Return when an event was recorded, in seconds UTC; of an event without a time, 0."""
    return datetime.fromisoformat(event["time"]).timestamp() if "time" in event else 0.0


def _of_another_size(logged: list[dict[str, Any]], rows: int) -> set[int]:
    """Return the numbers of the steps whose batch has not `rows` rows. Of steps that share a line of metrics, all of
    one epoch, the last one may have fewer."""
    found: set[int] = set()
    for line in logged:
        steps, last = line.get("steps", 1), line["step"]
        if (steps - 1) * rows < line["samples"] < steps * rows:
            found.add(last)
        elif line["samples"] != steps * rows:
            found.update(range(last - steps + 1, last + 1))
    return found


def _median(logged: list[dict[str, Any]], rows: int) -> float | None:
    whole = [line["seconds"] for line in logged if line["samples"] == rows]
    if not whole or any(line.get("steps", 1) != 1 for line in logged):
        return None
    return float(statistics.median(whole))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the whole lines of a file of JSON lines."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)
