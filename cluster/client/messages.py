"""Events and nodes in the service's messages, as plain values."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cluster.wire import pipetrain_pb2 as pb
from cluster.wire.convert import iso, moment


@dataclass(frozen=True, slots=True)
class JobEvent:
    """An event of a job: `text` describes it in a line for people, `details` has the facts of this `kind`."""

    seq: int
    time: datetime
    kind: str
    attempt: int
    text: str
    details: dict[str, Any]

    @staticmethod
    def from_wire(message: pb.Event) -> JobEvent:
        """Return the event of a message. Details that are no JSON stay as they are under the key `text`, a JSON value
        other than an object under the key `value`."""
        try:
            details = json.loads(message.details) if message.details else {}
        except ValueError:
            details = {"text": message.details}
        if not isinstance(details, dict):
            details = {"value": details}
        return JobEvent(message.seq, moment(message.time), message.kind, message.attempt, message.text, details)

    def as_dict(self) -> dict[str, Any]:
        """Return the event as plain values, its time in ISO 8601."""
        return {
            "seq": self.seq,
            "time": iso(self.time),
            "kind": self.kind,
            "attempt": self.attempt,
            "text": self.text,
            "details": self.details,
        }


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster. `memory` is what Ray can reserve for workers, in bytes, `memory_used` what it has
    reserved."""

    id: str
    host: str
    address: str
    alive: bool
    cpus: float
    cpus_used: float
    memory: int
    memory_used: int

    def as_dict(self) -> dict[str, Any]:
        """Return the node as plain values."""
        return {name: getattr(self, name) for name in Node.__slots__}


def node_from_wire(message: pb.Node) -> Node:
    """Return the node of a message."""
    return Node(**{name: getattr(message, name) for name in Node.__slots__})
