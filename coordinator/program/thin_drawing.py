"""Pictures of programs that are too large to draw each action: a line a worker, a letter for what it does most of the
time.

    worker   0  FFFFFFFFIIWWFFIIWW
    worker 512  ····FFFFFFIIWWFFII
"""

from __future__ import annotations

import numpy as np

from coordinator.program.clock import Timed
from coordinator.program.drawing import painted
from coordinator.program.table import KINDS, Numbers, Times, kinds_of
from stages.actions import Kind

MOST_ROWS = 32
_LETTERS = (*KINDS, None)  # of the rows of `_shares`: each kind, and idle


def draw_thin(
    timed: Timed, *, columns: int = 100, until: float | None = None, rows: int = MOST_ROWS, color: bool = False
) -> str:
    """Return a picture of a dry run with at most `rows` workers, evenly spread, and `columns` characters a line.

    Its time axis ends at `until`, by default when the step ends. Each letter is the kind of action that takes the most
    of its time; a dot is idle time.
    """
    workers = drawn_workers(timed.table.n_workers, rows)
    heads = [f"worker {worker:>{len(str(workers[-1]))}}  " for worker in workers]
    edges = np.linspace(0.0, timed.makespan if until is None else until, max(1, columns - len(heads[0])) + 1)
    return "\n".join(
        head + painted([(kind.value if kind else "·", kind) for kind in _row(timed, worker, edges)], color)
        for head, worker in zip(heads, workers, strict=True)
    )


def drawn_workers(n_workers: int, rows: int = MOST_ROWS) -> list[int]:
    """Return the workers that a thin picture shows, always the first and the last one."""
    n = min(rows, n_workers)
    return [round(place * (n_workers - 1) / max(1, n - 1)) for place in range(n)]


def _row(timed: Timed, worker: int, edges: Times) -> list[Kind | None]:
    kinds = kinds_of(timed.table.lanes[worker], timed.table.n_micro_batches)
    shares = [_time_in(kinds == kind, timed.starts[worker], timed.ends[worker], edges) for kind in range(len(KINDS))]
    idle = np.diff(edges) - sum(shares)
    most = np.argmax(np.stack([*shares, idle]) + 1e-9 * edges[-1] * np.arange(len(_LETTERS))[::-1, None], axis=0)
    return [_LETTERS[place] for place in most.tolist()]


def _time_in(chosen: Numbers, starts: Times, ends: Times, edges: Times) -> Times:
    """Return the time of the chosen actions between each two edges."""
    if not chosen.any():
        return np.zeros(len(edges) - 1)
    moments = np.stack([starts[chosen], ends[chosen]], axis=1).ravel()
    spent = np.zeros(len(moments))
    spent[1:] = np.cumsum(np.diff(moments) * (np.arange(1, len(moments)) % 2))
    return np.diff(np.interp(edges, moments, spent))
