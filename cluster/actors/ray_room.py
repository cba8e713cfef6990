"""What room a Ray cluster has for a job's workers: how many more fit, and whether one of them has lost its place."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from cluster.actors.ray_session import ray_session
from coordinator.job.spec import JobSpec
from coordinator.plan.layout import Room, workers_with_room
from stages.errors import JobFailed, NoRoom


def room_for_workers(
    ray: Any, bundle: Mapping[str, float], own: Collection[str] = (), except_on: Collection[str] = ()
) -> int:
    """Return how many workers that take `bundle` fit on the nodes that are alive, except on those of `except_on`. `own`
    has the node of each worker that the job has already, whose room counts as free."""
    from ray._private.state import available_resources_per_node

    free, nodes = available_resources_per_node(), []
    for node in ray.nodes():
        left, here = free.get(node["NodeID"], {}), sum(name == node["NodeID"] for name in own)
        if node["Alive"] and node["NodeID"] not in except_on:
            taken = {name: here * amount for name, amount in bundle.items()}
            nodes.append(
                Room(
                    cpus=left.get("CPU", 0.0) + taken["CPU"],
                    memory=left.get("memory", 0.0) + taken.get("memory", 0.0),
                )
            )
    return workers_with_room(nodes, int(bundle["CPU"]), bundle.get("memory", 0.0))


def require_a_node(ray: Any) -> None:
    """Raise JobFailed if no node of the cluster is left on which a worker could start."""
    if not any(node["Alive"] for node in ray.nodes()):
        raise JobFailed("Ray was lost: no node of its cluster is alive")


def room_at_start(spec: JobSpec, *, local: bool, address: str | None, most: int | None) -> int:
    """Return how many workers a job with `stages: auto` may have: `most` or, if that is None, as many as there is room
    for in the Ray cluster at `address`, or on this machine. Raises NotEnoughResources."""
    if spec.pipeline.stages != "auto" or most is not None:
        return most or 0
    cpus, memory = spec.resources.cpus_per_worker, spec.resources.memory_per_worker or 0
    if address is None or local:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        here = Room(cpus=len(os.sched_getaffinity(0)), memory=math.inf if local else physical)
        return workers_with_room([here], cpus, memory)
    with ray_session(address, cpus=0, memory=0) as ray:
        return room_for_workers(ray, {"CPU": cpus, **({"memory": memory} if memory else {})})


class Placing:
    """Watches whether all workers of the placement group `group` have a place that is not on a node that is `cut_off`.
    If one has none for `within_s`, or as soon as `give_up` says so, `look` raises NoRoom. `on_wait` is called with what
    the job waits for."""

    def __init__(
        self,
        group: Any,
        within_s: float,
        give_up: Callable[[], bool],
        on_wait: Callable[[str], None],
        cut_off: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        self._group, self._within_s, self._give_up, self._on_wait = group, within_s, give_up, on_wait
        self._cut_off = cut_off
        self._since: float | None = None

    def look(self) -> bool:
        """Return whether all have a place."""
        from ray.util.placement_group import placement_group_table

        found, cut_off = placement_group_table(self._group), self._cut_off()
        nodes = found["bundles_to_node_id"]
        if found["state"] == "CREATED" and cut_off.isdisjoint(nodes.values()):
            self._since = None
            return True
        self._since = self._since or time.monotonic()
        homeless = sorted(int(bundle) for bundle, node in nodes.items() if not node or node in cut_off)
        who = f"worker {', '.join(map(str, homeless))}" if homeless else "a worker"
        waited = time.monotonic() - self._since
        if self._give_up() or waited >= self._within_s:
            self._since = None
            raise NoRoom(f"the cluster has had no room for {who} for {waited:.0f} s")
        self._on_wait(f"waits for room for {who} in the cluster")
        return False
