"""Converts the service's records into messages of its interface."""

from __future__ import annotations

import json

from cluster.service.entry import JobView
from cluster.service.records import EventRecord, JobDocument
from cluster.wire import pipetrain_pb2 as pb
from cluster.wire.convert import state_number


def job_message(view: JobView, document: JobDocument | None = None, *, whole: bool = False) -> pb.Job:
    """Return a job's message, with its `document` if one is given; `whole` adds the traceback of its failure."""
    record, needs = view.record, view.record.needs
    message = pb.Job(
        id=record.id,
        name=record.name,
        state=state_number(record.state.name),
        reason=view.reason,
        attempt=record.attempt,
        step=record.step,
        steps_total=record.steps_total,
        loss=record.loss,
        validation_loss=record.validation_loss,
        validation_accuracy=record.validation_accuracy,
        validation_perplexity=record.validation_perplexity,
        validation_bits_per_byte=record.validation_bits_per_byte,
        submitted_at=record.submitted_at,
        started_at=record.started_at,
        ended_at=record.ended_at,
        priority=record.priority,
        queue_position=view.position,
        queue_length=view.queue_length,
        submission_id=record.submission_id,
        workers=needs.workers,
        cpus=needs.total_cpus,
        memory=needs.total_memory,
        exit_code=record.exit_code,
        model_saved=record.model_saved,
    )
    if document is not None:
        message.document = document.document
        message.files.update(document.files)
    if whole:
        message.traceback = record.traceback
    return message


def event_message(event: EventRecord) -> pb.Event:
    """Return an event's message."""
    return pb.Event(
        seq=event.seq,
        time=event.time,
        kind=event.kind,
        attempt=event.attempt,
        text=event.text,
        details=json.dumps(dict(event.details)),
    )


def grace_of(request: pb.StopRequest) -> float | None:
    """Return the seconds that a stopped job may take to save; None for those of the job."""
    return request.grace if request.HasField("grace") else None
