"""The process of a worker: how it is recognised, and its end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.actors.host_processes import end_ray_process
from cluster.actors.protocol import WorkerAddress

ACTOR_NAME = "PipetrainWorker"
"""The name of the actor's class, by which worker processes are recognised."""


def end_process(address: WorkerAddress) -> None:
    """Kill a worker's process on this host, because Ray's own kill does not reach a stopped one, and remove its
    socket."""
    if address.host != os.uname().nodename:
        return
    shutil.rmtree(Path(address.unix.removeprefix("ipc://")).parent, ignore_errors=True)
    end_ray_process(address.pid, ACTOR_NAME)


def let_drop(ray: Any, workers: Mapping[int, Any], within_s: float) -> list[int]:
    """Let these actors drop what they do; return the numbers of those that do not answer in time."""
    calls = {actor.drop.remote(): w for w, actor in workers.items()}
    late = ray.wait(list(calls), num_returns=len(calls), timeout=within_s)[1] if calls else []
    failed = []
    for call, w in calls.items():
        try:
            if call not in late:
                ray.get(call)
                continue
        except ray.exceptions.RayError:
            pass
        failed.append(w)
    return failed
