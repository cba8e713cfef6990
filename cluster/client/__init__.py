"""The job service from Python.

from cluster import Client

with Client() as client:                      # the service that `pipetrain up` started here
    job = client.submit("examples/digits.yaml")
    for row in job.steps():                   # a StepRow each, as they come, until the job has ended
        print(row.step, row.loss)
    for row in job.evaluations():             # an EvalRow each; `for row in job` has both kinds, in order
        print(row.step, row.loss, row.accuracy)
    job.raise_for_state().fetch("trained", what="model")

Everything here raises errors of `stages.errors`: NoService, InvalidJob, UnknownJob, Refused, JobFailed.
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
