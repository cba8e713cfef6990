"""The names of the built-in schedules, and how many workers each has by default."""

from __future__ import annotations

SCHEDULES: tuple[str, ...] = (
    "gpipe",
    "1f1b",
    "interleaved-1f1b",
    "looped-bfs",
    "zb-h1",
    "zb-h2",
    "zbv",
    "v-half",
    "v-min",
    "dualpipev",
)
"""The built-in schedules, by the names that `pipeline.schedule` takes."""

AUTO = "auto"
"""The schedule that is searched for a job's own costs; as many workers as stages by default."""

TWO_STAGES_A_WORKER = frozenset({"interleaved-1f1b", "looped-bfs", "zbv", "v-half", "v-min", "dualpipev"})
"""The schedules with half as many workers as stages by default."""


def default_workers(schedule: str, n_stages: int) -> int:
    """Return the number of stages; half of it, rounded up, for schedules with two stages a worker."""
    return (n_stages + 1) // 2 if schedule in TWO_STAGES_A_WORKER else n_stages


def fewest_micro_batches(schedule: str, n_workers: int) -> int:
    """Return the least number of micro-batches for which the schedule can be built."""
    return 2 * n_workers if schedule == "dualpipev" else 1
