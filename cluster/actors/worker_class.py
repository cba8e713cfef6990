"""The class of which Ray makes worker processes."""

from __future__ import annotations

from typing import Any

from cluster.actors.worker_actor import WorkerActor

_CONTROL = "control"
"""The concurrency group of calls that the actor answers while a step runs."""


def remote_class(ray: Any) -> Any:
    """Return Ray's class of workers, in which a separate thread handles the calls that are made while a step runs."""

    class PipetrainWorker(WorkerActor):
        """A WorkerActor that answers some calls while it works."""

        seen = ray.method(concurrency_group=_CONTROL)(WorkerActor.seen)
        look_at = ray.method(concurrency_group=_CONTROL)(WorkerActor.look_at)
        now = ray.method(concurrency_group=_CONTROL)(WorkerActor.now)
        drop = ray.method(concurrency_group=_CONTROL)(WorkerActor.drop)
        plan_fault = ray.method(concurrency_group=_CONTROL)(WorkerActor.plan_fault)

    return ray.remote(concurrency_groups={_CONTROL: 1})(PipetrainWorker)
