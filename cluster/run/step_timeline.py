"""Makes the content of timeline.json: the actions and the memory of all workers in one sampled step.

Times are whole microseconds since the step's first action, on this process's clock; `zero` is that moment in UTC.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from coordinator.timing.prediction import Prediction
from coordinator.train.rows import TrainedStep
from coordinator.train.workers import ClockFix
from stages.orders import StepReport

Actions = list[list[Any]]
"""Entries `[worker, "0F3", start, end]`, sorted by start."""


def step_timeline(
    row: TrainedStep,
    *,
    clocks: Sequence[ClockFix],
    places: Mapping[int, Mapping[str, Any]],
    prediction: Prediction | None,
    activations_predicted: Sequence[int],
    memory_limit: int | None,
) -> dict[str, Any]:
    """Return the content of timeline.json for a step with a timeline. `places[w]` has host and pid of worker w;
    `activations_predicted[s]` is the most bytes of activations that stage s keeps by the plan. In the result,
    `limit_bytes` is the limit of `peak_job_bytes`, and `peak_rss_bytes` the process's peak of resident memory."""
    measured = [
        (worker, str(action), start + clock.offset, end + clock.offset)
        for worker, (report, clock) in enumerate(zip(row.reports, clocks, strict=True))
        for action, start, end in report.timeline
    ]
    measured.sort(key=lambda item: (item[2], item[0]))
    zero = measured[0][2] if measured else 0.0
    return {
        "step": row.step,
        "zero": round(zero + time.time() - time.perf_counter(), 6),
        "seconds": round(max((end for *_, end in measured), default=zero) - zero, 6),
        "actions": [[worker, action, _us(start - zero), _us(end - zero)] for worker, action, start, end in measured],
        "predicted": _predicted(prediction),
        "memory": _memory(row.reports, activations_predicted),
        "workers": [
            {
                "worker": worker,
                "host": places.get(worker, {}).get("host", ""),
                "pid": places.get(worker, {}).get("pid"),
                "peak_job_bytes": None if report.memory is None else report.memory.peak_job,
                "peak_rss_bytes": None if report.memory is None else report.memory.peak_resident,
                "limit_bytes": memory_limit,
                "clock_offset_seconds": clock.offset,
                "clock_error_seconds": clock.error,
            }
            for worker, (report, clock) in enumerate(zip(row.reports, clocks, strict=True))
        ],
    }


def _memory(reports: Sequence[StepReport], predicted: Sequence[int]) -> list[dict[str, int]]:
    found = []
    for worker, report in enumerate(reports):
        held = {} if report.memory is None else report.memory.held
        for stage, (weights, gradients, optimizer) in held.items():
            found.append(
                {
                    "stage": stage,
                    "worker": worker,
                    "weights": weights,
                    "gradients": gradients,
                    "optimizer": optimizer,
                    "activations": report.saved_bytes[stage],
                    "activations_predicted": predicted[stage],
                }
            )
    return sorted(found, key=lambda entry: entry["stage"])


def _predicted(prediction: Prediction | None) -> Actions:
    spans = () if prediction is None else prediction.spans
    found = [[w, str(action), _us(start), _us(end)] for w, lane in enumerate(spans) for action, start, end in lane]
    return sorted(found, key=lambda item: (item[2], item[0]))


def _us(seconds: float) -> int:
    return round(1e6 * seconds)
