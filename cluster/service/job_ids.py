"""Makes job ids, and finds the job that a part of an id or a name means."""

from __future__ import annotations

import secrets

from cluster.service.store import Store
from coordinator.job.nearest import did_you_mean
from stages.errors import UnknownJob

_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # without letters and digits that look alike
_LOOKED_AT = 2000  # newest jobs among which the nearest id or name is searched
_LISTED = 3


def new_job_id() -> str:
    """Return a new random id of eight letters and digits."""
    return "".join(secrets.choice(_LETTERS) for _ in range(8))


def find_id(store: Store, text: str) -> str:
    """Return the id of the job that `text` means: a whole id, else the beginning of an id or the name of a job.

    Raises UnknownJob if no job matches (the error names the nearest id or name) or several match (it lists their ids).
    """
    begun = store.ids(text, _LISTED + 1) if text else []
    if text in begun or (text and store.get(text) is not None):
        return text
    named = store.select_ids(name=text, limit=_LISTED + 1) if text else []
    found = list(dict.fromkeys([*begun, *named]))
    if len(found) == 1:
        return found[0]
    if found:
        raise UnknownJob(_several(text, begun, named, found))
    known = [*store.ids("", _LOOKED_AT), *store.names(_LOOKED_AT)]
    raise UnknownJob(f"no job has the id or the name {text[:40]!r}{did_you_mean(text, known)}")


def _several(text: str, begun: list[str], named: list[str], found: list[str]) -> str:
    listed = ", ".join(found[:_LISTED]) + (", …" if len(found) > _LISTED else "")
    if not named:
        return f"{text} begins several ids: {listed}; give more of it"
    if not begun:
        return f"several jobs are named {text}: {listed} (the newest first); give the id"
    return f"{text} is the name of a job and the beginning of an id: {listed}; give a whole id"
