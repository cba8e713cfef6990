"""The Python client of the job service. Users import its names from `pipetrain`, whose docstring has an example.

All errors raised here are from `stages.errors`: NoService, InvalidJob, UnknownJob, Refused, JobFailed.
"""

from cluster.client.client import Client
from cluster.client.cluster_state import ClusterState
from cluster.client.figures import JobFigures, WorkerFigures
from cluster.client.job import Job, JobUpdate
from cluster.client.messages import JobEvent, Node
from cluster.client.upload import Upload
from coordinator.train.rows import EvalRow, StepRow

__all__ = [
    "Client",
    "ClusterState",
    "EvalRow",
    "Job",
    "JobEvent",
    "JobFigures",
    "JobUpdate",
    "Node",
    "StepRow",
    "Upload",
    "WorkerFigures",
]
