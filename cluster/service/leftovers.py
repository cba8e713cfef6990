"""Ends processes of an attempt that Ray's own kill does not reach, such as stopped (SIGSTOP) ones."""

from __future__ import annotations

import os

from cluster.actors.host_processes import end_ray_process
from cluster.actors.worker_process import ACTOR_NAME as WORKER_NAME
from cluster.run.job_runner import ACTOR_NAME as RUNNER_NAME
from cluster.service.entry import Entry
from cluster.service.store import Store


def end_leftovers(store: Store, entry: Entry) -> None:
    """End the processes of the entry's present attempt on this host: the runner and the workers."""
    if entry.record.runner_pid is not None:
        end_ray_process(entry.record.runner_pid, RUNNER_NAME)
    for event in store.events(entry.record.id):
        if event.kind in ("started", "recovered") and event.attempt == entry.attempt:
            for worker in event.details["workers"]:
                if worker["host"] == os.uname().nodename:
                    end_ray_process(worker["pid"], WORKER_NAME)
