"""The service and its cluster, as they are at present."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cluster.client.job import Job
from cluster.client.messages import Node
from cluster.wire.convert import iso


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
