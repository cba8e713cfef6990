"""Decides whether a run is laid out anew on more workers: a pure function of times and of the room in the cluster.

Every new layout costs the start of processes, and reading a checkpoint. So it must have been possible for a while, and
each further one within an hour waits twice as long as the one before.
"""

from __future__ import annotations

from collections.abc import Sequence

_SETTLED_S = 10.0
_REMEMBERED_S = 3600.0


def grows(
    now: float, *, workers: int, possible: int, possible_since: float, layouts: Sequence[float], after_s: float
) -> bool:
    """Whether a run on `workers` workers is laid out anew on `possible` ones. All times are in seconds on one clock.

    `possible_since`: since when the cluster has this room. `layouts` has the times of all layouts of the run, the first
    one included, in ascending order; the last is at least `after_s` ago.
    """
    if possible <= workers or now - possible_since < min(_SETTLED_S, after_s):
        return False
    recent = sum(now - begun < _REMEMBERED_S for begun in layouts[1:])
    return now - layouts[-1] >= min(_REMEMBERED_S, after_s * 2.0 ** min(recent, 60)) if layouts else True
