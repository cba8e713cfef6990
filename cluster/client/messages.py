"""What the service tells, as plain values."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cluster.wire import pipetrain_pb2 as pb
from cluster.wire.convert import iso, moment, row_from_wire
from coordinator.train.rows import Row

if TYPE_CHECKING:
    from cluster.client.job import Job


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something that happened to a job: `text` is a line for people, `details` has the facts of this `kind`."""

    seq: int
    time: datetime
    kind: str
    attempt: int
    text: str
    details: dict[str, Any]

    @staticmethod
    def from_wire(message: pb.Event) -> JobEvent:
        """The event of a message; details that are no JSON object stay under the key `text`."""
        try:
            details = json.loads(message.details) if message.details else {}
        except ValueError:
            details = {"text": message.details}
        if not isinstance(details, dict):
            details = {"value": details}
        return JobEvent(message.seq, moment(message.time), message.kind, message.attempt, message.text, details)

    def as_dict(self) -> dict[str, Any]:
        """The event as plain values, its time in ISO 8601."""
        return {
            "seq": self.seq,
            "time": iso(self.time),
            "kind": self.kind,
            "attempt": self.attempt,
            "text": self.text,
            "details": self.details,
        }


@dataclass(frozen=True, slots=True)
class JobUpdate:
    """What came of a job since the update before. `job` is the job itself, as it now stands.

    `has_state`: the service sent the state, which it also does every few seconds when nothing happens.
    """

    job: Job
    events: tuple[JobEvent, ...]
    rows: tuple[Row, ...]
    has_state: bool

    @staticmethod
    def from_wire(job: Job, message: pb.WatchUpdate) -> JobUpdate:
        """The update of a message about `job`."""
        events = tuple(map(JobEvent.from_wire, message.events))
        return JobUpdate(job, events, tuple(map(row_from_wire, message.rows)), message.HasField("job"))


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster. Memory in bytes: what Ray gives away to workers, and what of it is given away."""

    id: str
    host: str
    address: str
    alive: bool
    cpus: float
    cpus_used: float
    memory: int
    memory_used: int

    def as_dict(self) -> dict[str, Any]:
        """The node as plain values."""
        return {name: getattr(self, name) for name in Node.__slots__}


@dataclass(frozen=True, slots=True)
class ClusterState:
    """The service, its nodes, and the jobs that run and wait. `jobs` counts those in each state."""

    version: str
    started_at: datetime
    ray: str
    ray_address: str
    nodes: tuple[Node, ...]
    jobs: dict[str, int]
    active: tuple[Job, ...]
    waiting: tuple[Job, ...]
    max_queued: int
    home: str
    problems: tuple[str, ...] = ()
    """What does not work now, a line each; empty where all does."""

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of `pipetrain cluster --json`."""
        return {
            "version": self.version,
            "started_at": iso(self.started_at),
            "home": self.home,
            "ray": self.ray,
            "ray_address": self.ray_address,
            "nodes": [node.as_dict() for node in self.nodes],
            "jobs": dict(self.jobs),
            "active": [job.as_dict() for job in self.active],
            "waiting": [job.as_dict() for job in self.waiting],
            "max_queued": self.max_queued,
            "problems": list(self.problems),
        }


def node_from_wire(message: pb.Node) -> Node:
    """The node of a message."""
    return Node(**{name: getattr(message, name) for name in Node.__slots__})
