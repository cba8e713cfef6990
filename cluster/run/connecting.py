"""Starts the workers of a run where it wants them."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from cluster.actors.ray_session import ray_session
from cluster.actors.ray_workers import RayWorkers
from cluster.actors.runner_link import RunnerLink
from cluster.checkpoints.folder import NO_STATE, CheckpointReader, StatePlaces
from cluster.checkpoints.given_weights import begin_with
from cluster.checkpoints.layer_files import LayerFiles
from cluster.data.sources import JobData
from coordinator.plan.blueprint import Blueprint
from coordinator.train.local import LocalWorkers
from coordinator.train.workers import Workers
from stages.orders import Faults


@contextlib.contextmanager
def connect(
    blueprint: Blueprint,
    data: JobData,
    faults: Faults | None = None,
    give_up: Callable[[], bool] = lambda: False,
    weights: int | None = None,
    states: StatePlaces = NO_STATE,
    *,
    local: bool,
    address: str | None,
    inside: RunnerLink | None,
    session: Any = None,
    on_wait: Callable[[str], None],
    require_time: Callable[[], None] = lambda: None,
) -> Iterator[Workers]:
    """Start the workers of a job, and close them after the block: in threads (`local`), in the Ray cluster at
    `address`, or in a Ray that is started for them. `inside`, `session`: see Where. `weights` is the
    result of `check_weights`.

    Raises StoppedEarly if `give_up` returns True before they run. Waits for workers call `require_time` now and then.
    """
    if local:
        with contextlib.ExitStack() as stack:
            reader = None
            if states.resume is not None:
                reader = stack.enter_context(contextlib.closing(CheckpointReader(Path(states.resume))))
            folder = states.folder
            threads = LocalWorkers(
                blueprint,
                train=data.train,
                validation=data.validation,
                parameters=None if weights is None else begin_with(blueprint.spec),
                faults=faults,
                snapshots=None if folder is None else lambda: LayerFiles(Path(folder), states.token),
                restore_from=None if reader is None else reader.read,
                require_time=require_time,
            )
            stack.enter_context(contextlib.closing(threads))
            yield threads
        return
    workers_on = partial(
        RayWorkers,
        blueprint=blueprint,
        fingerprint=data.fingerprint(),
        checked=data.checked,
        weights=weights,
        faults=faults,
        give_up=give_up,
        require_time=require_time,
        places_of_state=states,
    )
    if inside is not None:
        with contextlib.closing(workers_on(importlib.import_module("ray"), link=inside, on_wait=on_wait)) as workers:
            yield workers
        return
    resources, n = blueprint.spec.resources, blueprint.n_workers
    memory = (resources.memory_per_worker or 0) * n
    with (
        contextlib.nullcontext(session)
        if session is not None
        else ray_session(address, cpus=resources.cpus_per_worker * n, memory=memory) as ray,
        contextlib.closing(workers_on(ray)) as workers,
    ):
        yield workers
