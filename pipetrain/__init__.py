"""Pipetrain from Python: `dir(pipetrain)` is all that is public.

from pipetrain import Client

with Client() as client:                      # the service that `pipetrain up` started here
    job = client.submit("examples/digits.yaml")
    for row in job.steps():                   # a StepRow each, as they come, until the job has ended
        print(row.step, row.loss)
    for row in job.evaluations():             # an EvalRow each; `for row in job` has both kinds, in order
        print(row.step, row.loss, row.accuracy)
    job.raise_for_state().fetch("trained", what="model")

Every error raised here is a PipetrainError. The packages below (cluster, coordinator, stages) are how it is made, and
may change.
"""

from __future__ import annotations

from cluster.client import (
    Client,
    ClusterState,
    EvalRow,
    Job,
    JobEvent,
    JobFigures,
    JobUpdate,
    Node,
    StepRow,
    Upload,
    WorkerFigures,
)
from stages.errors import (
    FailurePlace,
    HostFailed,
    InvalidData,
    InvalidJob,
    InvalidSchedule,
    JobFailed,
    NonFinite,
    NoService,
    NotEnoughResources,
    PipetrainError,
    Refused,
    StageFailed,
    StoppedEarly,
    UnexpectedError,
    UnknownJob,
    UserMistake,
    WorkerHung,
    WorkerLost,
)

__all__ = [
    "Client",
    "ClusterState",
    "EvalRow",
    "FailurePlace",
    "HostFailed",
    "InvalidData",
    "InvalidJob",
    "InvalidSchedule",
    "Job",
    "JobEvent",
    "JobFailed",
    "JobFigures",
    "JobUpdate",
    "NoService",
    "Node",
    "NonFinite",
    "NotEnoughResources",
    "PipetrainError",
    "Refused",
    "StageFailed",
    "StepRow",
    "StoppedEarly",
    "UnexpectedError",
    "UnknownJob",
    "Upload",
    "UserMistake",
    "WorkerFigures",
    "WorkerHung",
    "WorkerLost",
]


def __dir__() -> list[str]:
    return sorted(__all__)
