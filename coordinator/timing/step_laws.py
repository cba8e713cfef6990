"""The laws of the built-in schedules: how long a step takes, how much a worker keeps, how many arrays are sent. They
need no program, so they answer for any number of workers; tests compare them with the programs of all small numbers.

Workers perform a B as its I and its W. p workers have one stage each, or two if the schedule is made for that; F, I and
W are the times of one worker's layers and one micro-batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.job.schedule_names import TWO_STAGES_A_WORKER

FULL_CIRCLE = frozenset({"interleaved-1f1b", "looped-bfs"})
"""Schedules in which the last worker sends to the first one, too."""


@dataclass(frozen=True, slots=True)
class StepLaw:
    """`step` is the time of a step; `span` the longest time from a worker's first action to its last one."""

    step: float
    span: float


def step_by_law(schedule: str, p: int, m: int, times: tuple[float, float, float], latency: float) -> StepLaw | None:
    """Return how long a step of m micro-batches takes; None if no law is known for these numbers.

    - `gpipe`: any times and any latency; `1f1b`: any times, no latency; `looped-bfs`: any times, no latency, m ≥ p.
    - The others: F = I = W, no latency, and m ≥ p; zbv and the span of zb-h2 m ≥ 2 p − 1, dualpipev m ≥ 2 p.
    """
    forward, backward, weight = times
    busy, both = m * (forward + backward + weight), forward + backward
    if schedule == "gpipe":
        return _whole(busy + (p - 1) * (both + 2 * latency))
    if latency or (m < p and schedule != "1f1b"):
        return None
    if schedule == "1f1b":
        return _whole(busy + (p - 1) * both)
    if schedule == "looped-bfs":
        return _whole(busy + (p - 1) * both / 2)
    if not forward == backward == weight:
        return None
    step = busy + _idle(schedule, p) * forward
    if schedule in ("zb-h2", "zbv"):
        return StepLaw(step, busy) if m >= 2 * p - 1 else None
    if (schedule == "dualpipev" and m < 2 * p) or (schedule == "v-half" and p == 2):
        return None
    return _whole(step)


def _whole(step: float) -> StepLaw:
    """Return the law of a schedule whose first worker has the first and the last action of a step."""
    return StepLaw(step, step)


def _idle(schedule: str, p: int) -> float:
    """Return how long a worker idles in a step, in units of F = I = W of its layers."""
    match schedule:
        case "interleaved-1f1b" | "zb-h1" | "zb-h2":
            return p - 1
        case "zbv" | "dualpipev":
            return (p - 1) / 2
        case "v-half":
            return 0 if p == 1 else (3 * p - 7) / 2 if p % 2 == 0 else (3 * p - 4) / 2
        case "v-min":
            return 0 if p == 1 else (4 * p - 5) / 2 if p % 3 else (4 * p - 3) / 2
        case _:
            raise ValueError(f"{schedule} is not a built-in schedule")


def kept_by_law(schedule: str, p: int, m: int) -> float:
    """Return the most micro-batches that a worker keeps from F to W; one of two stages counts a half. For any numbers
    for which the schedule can be built, whatever the times."""
    match schedule:
        case "gpipe" | "looped-bfs":
            return m
        case "interleaved-1f1b":
            largest_round = -(-m // max(1, m // p))
            return min(m, (largest_round + 2 * (p - 1) + 1) / 2)
        case "1f1b" | "zb-h1" | "zbv":
            return min(m, p)
        case "zb-h2":
            return min(m, 2 * p - 1)
        case "v-half":
            return min(m, (p + 2) // 2)
        case "v-min":
            return min(m, (p + 4) // 3)
        case "dualpipev":
            return p + 0.5
        case _:
            raise ValueError(f"{schedule} is not a built-in schedule")


def messages_by_law(schedule: str, p: int, m: int) -> int:
    """Return how many arrays workers send each other in a step. Nothing is sent at the turn of a V."""
    if schedule not in TWO_STAGES_A_WORKER:
        return 2 * m * (p - 1)
    return 2 * m * (2 * p - 2 + (p > 1 and schedule in FULL_CIRCLE))
