"""Adds up each worker's time by kind, from a line of accounts.jsonl: its stages' times and its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages.ledger import BUBBLE_KINDS, STAGE_KINDS, WORKER_KINDS

BUBBLE = tuple(STAGE_KINDS[kind] for kind in BUBBLE_KINDS)
WAITS = tuple(kind for kind in STAGE_KINDS if kind.startswith("wait_"))
COMPUTE = tuple(kind for kind in STAGE_KINDS if kind not in BUBBLE)

Times = Mapping[str, int]
"""Microseconds of one worker by kind (STAGE_KINDS and WORKER_KINDS). Their sum is its wall time."""


def worker_times(line: Mapping[str, Any], placement: Sequence[int]) -> list[Times]:
    """Return the times of every worker. `placement[s]` is the worker of stage s."""
    found: list[dict[str, int]] = [
        {**dict.fromkeys(STAGE_KINDS, 0), **dict(zip(WORKER_KINDS, own, strict=True))} for own in line["worker_us"]
    ]
    for worker, row in zip(placement, line["stage_us"], strict=True):
        for kind, us in zip(STAGE_KINDS, row, strict=True):
            found[worker][kind] += us
    return list(found)


def predicted_bubbles(line: Mapping[str, Any], placement: Sequence[int]) -> list[float] | None:
    """Return every worker's predicted bubble; None before the first prediction."""
    if line["predicted"] is None:
        return None
    shares = [0.0] * len(line["worker_us"])
    for worker, share in zip(placement, line["predicted"], strict=True):
        shares[worker] += share
    return shares


def bubble_of(times: Times) -> float | None:
    """Return a worker's bubble, without the time of evaluations and recoveries; None if no time has passed."""
    wall = sum(times.values()) - times.get("evaluation", 0) - times.get("recovery", 0)
    return sum(times.get(kind, 0) for kind in BUBBLE) / wall if wall > 0 else None
