"""Ends processes of an attempt that Ray's own kill does not reach, such as stopped (SIGSTOP) ones."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from cluster.actors.host_processes import end_ray_process, existed_at
from cluster.actors.worker_process import ACTOR_NAME as WORKER_NAME
from cluster.run.job_runner import ACTOR_NAME as RUNNER_NAME
from cluster.service.entry import Entry
from cluster.service.store import Store


def end_leftovers(store: Store, entry: Entry) -> None:
    """End the processes of the entry's present attempt on this host: the runner and the workers. A process that was
    started after the event that names its id is another one, and stays."""
    for event in store.events(entry.record.id):
        if event.attempt != entry.attempt:
            continue
        if event.kind == "preparing" and event.details.get("host") == os.uname().nodename:
            _end(event.details["pid"], RUNNER_NAME, event.details)
        if event.kind in ("started", "recovered"):
            for worker in event.details["workers"]:
                if worker["host"] == os.uname().nodename:
                    _end(worker["pid"], WORKER_NAME, event.details)


def _end(pid: int, actor_class: str, moment: Mapping[str, Any]) -> None:
    if existed_at(pid, moment):
        end_ray_process(pid, actor_class)
