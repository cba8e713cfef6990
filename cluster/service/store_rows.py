"""Converts jobs and events to rows of the store and back, and detects damaged rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any

from cluster.service.records import EventRecord, JobRecord
from coordinator.queue.job_queue import Needs
from coordinator.queue.job_states import State
from coordinator.queue.state_texts import from_document, to_document

OWN = tuple(f.name for f in fields(JobRecord) if f.name not in ("needs", "state", "order"))
COLUMNS = (*OWN, "workers", "cpus", "memory", "state", "evidence")
_VALUES: Mapping[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (float, int), "bool": (int,)}


def _kinds(written: str) -> tuple[type, ...]:
    """Return the types in which SQLite returns values of a field with this annotation."""
    name, _, optional = written.partition(" | ")
    return (*_VALUES[name], type(None)) if optional else _VALUES[name]


_KINDS = tuple(_kinds(str(f.type)) for f in fields(JobRecord) if f.name in OWN)


class UnreadableRow(ValueError):
    """A row is damaged: this program did not write it in this form."""


def values_of(record: JobRecord) -> tuple[Any, ...]:
    """Return the record's values in the order of COLUMNS."""
    needs, state = record.needs, record.state
    own = (getattr(record, name) for name in OWN)
    return (*own, needs.workers, needs.cpus, needs.memory, state.name, json.dumps(to_document(state)))


def record_of(row: Sequence[Any]) -> JobRecord:
    """Return the record of a row (its order, then COLUMNS). Raises UnreadableRow."""
    order, *own = row[: len(OWN) + 1]
    workers, cpus, memory, state, evidence = row[len(OWN) + 1 :]
    values: Mapping[str, Any] = dict(zip(OWN, own, strict=True))
    kinds = (*_KINDS, (int,), (int,), (int,))
    if not all(isinstance(value, kind) for value, kind in zip((*own, workers, cpus, memory), kinds, strict=True)):
        raise UnreadableRow(f"job {values['id']!r}: a value has the wrong type")
    try:
        found = _state(state, evidence)
    except (ValueError, TypeError, AttributeError) as error:
        raise UnreadableRow(f"the state of job {values['id']}: {error}") from None
    return JobRecord(
        **{**values, **{name: bool(values[name]) for name in ("force", "remote", "preempt")}},
        order=order,
        needs=_needs(workers, cpus, memory),
        state=found,
    )


def event_of(row: Sequence[Any]) -> EventRecord:
    """Return the event of a row. Raises ValueError, TypeError."""
    seq, at, kind, attempt, text, details = row
    return EventRecord(
        seq=int(seq),
        time=float(at),
        kind=text_of(kind),
        attempt=int(attempt),
        text=text_of(text),
        details=_object(details),
    )


def text_of(value: Any) -> str:
    """Return the value of a text column. Raises UnreadableRow."""
    if not isinstance(value, str):
        raise UnreadableRow(f"{value!r} is not text")
    return value


def _object(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise UnreadableRow(f"{text[:40]!r} is not a JSON object")
    return found


@lru_cache(maxsize=256)
def _needs(workers: int, cpus: int, memory: int) -> Needs:
    return Needs(workers=workers, cpus=cpus, memory=memory)


@lru_cache(maxsize=256)
def _state(name: str, evidence: str) -> State:
    """Return a state, cached: most jobs of a long list have one of a few states, which are immutable."""
    return from_document(name, json.loads(evidence))
