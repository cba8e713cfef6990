"""The present state of the service and its cluster."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cluster.client.job import Job
from cluster.client.messages import Node
from cluster.wire.convert import iso


@dataclass(frozen=True, slots=True)
class ClusterState:
    """The state of the service, its nodes, and the jobs that run (`active`) or wait (`waiting`). `jobs` has the number
    of jobs in each state."""

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
    """The present problems of the service, a line each; empty if everything works."""

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of `pipetrain cluster --json`."""
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
