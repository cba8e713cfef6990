"""Ids of jobs: how they are made, and how a part of one finds its job."""

from __future__ import annotations

import difflib
import secrets

from cluster.service.store import Store
from stages.errors import UnknownJob

_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # without those that look alike
_LOOKED_AT = 2000  # of the newest, for the nearest


def new_job_id() -> str:
    """Eight letters and digits: short enough to type a part of, and never given twice."""
    return "".join(secrets.choice(_LETTERS) for _ in range(8))


def find_id(store: Store, prefix: str) -> str:
    """The id that begins like that. Raises UnknownJob with the nearest, or with those that it may be."""
    found = store.ids(prefix, 4) if prefix else []
    if len(found) == 1 or prefix in found:
        return prefix if prefix in found else found[0]
    if found:
        listed = ", ".join(found[:3]) + (", …" if len(found) > 3 else "")
        raise UnknownJob(f"{prefix} begins several ids: {listed}; give more of it")
    near = difflib.get_close_matches(prefix, store.ids("", _LOOKED_AT), n=1, cutoff=0.5)
    raise UnknownJob(f"no job has the id {prefix[:40]!r}" + (f"; did you mean {near[0]}?" if near else ""))
