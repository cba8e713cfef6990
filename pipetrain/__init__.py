"""The public Python interface of pipetrain. `dir(pipetrain)` lists all public names.

from pipetrain import Client

with Client() as client:                      # the service that `pipetrain up` started on this machine
    job = client.submit("examples/digits.yaml")
    for row in job.steps():                   # each a StepRow, live, until the job has ended
        print(row.step, row.loss)
    for row in job.evaluations():             # each an EvalRow; `for row in job` gives both kinds, in order
        print(row.step, row.loss, row.accuracy)
    job.raise_for_state().fetch("trained", what="model")

All errors of this interface are PipetrainErrors. The packages cluster, coordinator and stages are its implementation
and may change.
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
    GraceOver,
    HostFailed,
    InvalidData,
    InvalidJob,
    InvalidSchedule,
    JobFailed,
    LinkLost,
    NonFinite,
    NoRoom,
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
    "GraceOver",
    "HostFailed",
    "InvalidData",
    "InvalidJob",
    "InvalidSchedule",
    "Job",
    "JobEvent",
    "JobFailed",
    "JobFigures",
    "JobUpdate",
    "LinkLost",
    "NoRoom",
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
