"""Reserves room for a job's workers in a Ray cluster with a placement group."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from stages.errors import NotEnoughResources, StoppedEarly

_LOOK_EVERY_S = 0.5
NODE_LABEL = "ray.io/node-id"
"""The label with which Ray itself marks each node."""


def reserve(
    ray: Any,
    bundle: Mapping[str, float],
    n: int,
    *,
    within_s: float | None,
    give_up: Callable[[], bool],
    on_wait: Callable[[str], None],
    except_on: Collection[str] = (),
) -> Any:
    """Return a placement group of `n` bundles that is ready, none of them on a node of `except_on`. If `within_s` is
    None, wait until `give_up` returns True, and call `on_wait` with what the job waits for.

    Raises NotEnoughResources if the cluster is too small or has no room in time, StoppedEarly on `give_up`.
    """
    from ray.util.placement_group import placement_group

    if within_s is not None:
        _require(ray, bundle, n)
    elsewhere = [{NODE_LABEL: f"!in({','.join(sorted(except_on))})"}] * n if except_on else None
    group = placement_group([dict(bundle)] * n, strategy="PACK", bundle_label_selector=elsewhere)
    try:
        began, ready = time.monotonic(), group.ready()
        while not ray.wait([ready], timeout=_LOOK_EVERY_S)[0]:
            if give_up():
                raise StoppedEarly("stopped while waiting for room in the cluster")
            free, total = (found.get("CPU", 0) for found in (ray.available_resources(), ray.cluster_resources()))
            workers = f"{n} workers of {bundle['CPU']:g} CPUs"
            if within_s is None:
                on_wait(f"waits for Ray to place {workers}; {free:g} of {total:g} CPUs are free")
            elif time.monotonic() - began > within_s:
                raise NotEnoughResources(
                    f"the job needs {workers}; after {within_s:g} s the cluster still "
                    f"has only {free:g} of its {total:g} CPUs free"
                )
    except BaseException:
        release(group)
        raise
    return group


def release(group: Any) -> None:
    """Release the room. A second call does no harm, nor does one after Ray has ended."""
    from ray.util.placement_group import remove_placement_group

    with contextlib.suppress(Exception):
        remove_placement_group(group)


def on_node(node: str) -> Any:
    """Return the strategy that places an actor on this node, or nowhere."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def _require(ray: Any, bundle: Mapping[str, float], n: int) -> None:
    total = ray.cluster_resources()
    for name, amount in bundle.items():
        if total.get(name, 0) < amount * n:
            unit = "CPUs" if name == "CPU" else "bytes of memory"
            raise NotEnoughResources(
                f"the job needs {amount * n:g} {unit} ({n} workers of {amount:g}), "
                f"the cluster has {total.get(name, 0):g}"
            )
