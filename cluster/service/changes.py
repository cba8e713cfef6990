"""Pure changes of a job's record after an event, and a context manager that logs errors."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import replace

from cluster.service.entry import Entry
from cluster.service.records import EventRecord, JobRecord
from coordinator.queue.job_states import Failed, Queued, State
from coordinator.queue.state_texts import reason
from coordinator.texts import counted

_log = logging.getLogger(__name__)


def submitted(record: JobRecord) -> EventRecord:
    """Return a job's first event."""
    needs = record.needs
    workers = f"{counted(needs.workers, 'worker')} of {counted(needs.cpus, 'CPU')}"
    why = f" {record.state.why};" if isinstance(record.state, Queued) and record.state.why else ""
    text = f"accepted;{why} needs {workers}"
    return EventRecord(seq=1, time=record.submitted_at, kind="submitted", attempt=0, text=text, details={})


def following(entry: Entry, event: EventRecord) -> JobRecord:
    """Return the record with the event counted, and with the step and loss from the rows read so far."""
    record = replace(entry.live_record(), events=event.seq)
    if event.kind == "starting" and "steps_total" in event.details:
        record = replace(record, steps_total=event.details["steps_total"])
    if event.kind == "resumed" and "step" in event.details:
        record = replace(record, step=event.details["step"])
    if event.kind in ("starting", "laid out anew") and isinstance(event.details.get("stages"), int):
        record = replace(record, stages=event.details["stages"])
    if event.kind == "preparing" and "pid" in event.details:
        record = replace(record, runner_pid=event.details["pid"])
    return record


def begun(record: JobRecord, attempt: int, now: float) -> JobRecord:
    """Return the record at the beginning of an attempt."""
    return replace(
        record,
        attempt=attempt,
        started_at=record.started_at or now,
        step=0,
        loss=None,
        validation_loss=None,
        validation_accuracy=None,
        validation_perplexity=None,
        validation_bits_per_byte=None,
        best_validation_loss=None,
        samples_per_second=None,
        runner_pid=None,
    )


def gave_up(before: JobRecord, state: State) -> tuple[JobRecord, EventRecord]:
    """Return the record and the event of a job that fails because its data cannot be stored. Both have only values
    that can be stored."""
    text = reason(state).encode("utf-8", "backslashreplace").decode()
    if isinstance(state, Failed):
        state = replace(state, cause=text)
    event = EventRecord(
        seq=before.events + 1, time=time.time(), kind="failed", attempt=before.attempt, text=text, details={}
    )
    return replace(before, state=state, events=event.seq, ended_at=event.time), event


@contextlib.contextmanager
def logged(what: str) -> Iterator[None]:
    """Log any exception of the block, so that one job's error does not end the service."""
    try:
        yield
    except Exception:
        _log.exception("%s", what)
