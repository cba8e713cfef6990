"""A connection to Ray: to an embedded local cluster that leaves nothing behind, or to a running one.

[Note: loopback] Even if it is given a loopback address, Ray replaces it with the host's outward address and listens
there. `loopback` makes Ray keep the given address; its servers then listen on 127.0.0.1 only. The token keeps other
users of the host out.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

from cluster.actors.disk_room import full_for_ray
from cluster.actors.private_folders import private_folder, short_base, sweep_leftovers
from coordinator.job.spec import JobSpec
from stages.errors import NotEnoughResources

LOOPBACK = "127.0.0.1"
OBJECT_STORE_BYTES = 256 * 2**20  # for gathered weights; Ray spills the rest to disk
RAY_FOLDER = "ray"
"""Ray's `--temp-dir`, inside a private folder, because Ray makes this one writable for everybody."""
QUIET_RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_prestart_worker_first_driver": "0",  # workers need environments of their own
}
"""Settings of every Ray that pipetrain starts."""


@contextlib.contextmanager
def ray_session(address: str | None, *, cpus: int, memory: int) -> Iterator[Any]:
    """Yield the Ray module, connected to the cluster at `address`. If that is None, start an embedded cluster that
    offers `cpus` CPUs and `memory` bytes.

    The embedded cluster listens on loopback with a token of its own, keeps its files in one private folder, and ends
    with this process however that ends. Raises NotEnoughResources if no cluster answers at `address`, or if the
    embedded one cannot start.
    """
    if address is not None:
        check_address(address)
        mode = os.environ.get("RAY_AUTH_MODE", "token" if "RAY_AUTH_TOKEN" in os.environ else "disabled")
        with _environment(RAY_AUTH_MODE=mode), _joined(address) as ray:
            yield ray
        return
    sweep_leftovers()
    with _environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32)), _embedded(cpus, memory) as ray:
        yield ray


@contextlib.contextmanager
def workers_session(spec: JobSpec, workers: int, *, local: bool, address: str | None = None) -> Iterator[Any]:
    """Yield what so many workers of a job need: a `ray_session`, or None for threads (`local`)."""
    if local:
        yield None
        return
    resources = spec.resources
    memory = (resources.memory_per_worker or 0) * workers
    with ray_session(address, cpus=resources.cpus_per_worker * workers, memory=memory) as ray:
        yield ray


def check_address(address: str, option: str = "--address") -> None:
    """Raise NotEnoughResources if nothing listens at HOST:PORT. Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        if address == "auto":
            return
        raise NotEnoughResources(
            f"{option}: {address!r} must be HOST:PORT of a Ray head, such as 10.0.0.5:6379, or auto"
        )
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NotEnoughResources(f"no Ray cluster answers at {address}: {reason}; is its head running?") from None


def full_here(ray: Any) -> str:
    """Return the error's text if Ray has no room for its files on this host; else ""."""
    return full_for_ray(ray._private.worker.global_worker.node.get_session_dir_path())


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Set environment variables with Ray's settings in the block, and restore the previous ones afterwards."""
    quiet = {
        **QUIET_RAY,
        # else Ray reports a dead worker on the command's standard output; pipetrain's own error says which one
        "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",
    }
    before = {name: os.environ.get(name) for name in {**quiet, **variables}}
    os.environ.update({name: value for name, value in quiet.items() if before[name] is None} | variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _embedded(cpus: int, memory: int) -> Iterator[Any]:
    """Start an embedded Ray, with a second try: Ray gives up after half a minute, which is too short on a busy host."""
    ray = importlib.import_module("ray")
    with contextlib.ExitStack() as started:
        try:
            started.enter_context(_started(ray, cpus, memory))
        except _StartFailed as first:
            if first.full:
                raise
            started.enter_context(_started(ray, cpus, memory))
        yield ray


class _StartFailed(NotEnoughResources):
    """Ray did not start. `full`: because the disk is full, so a second try would fail too."""

    def __init__(self, reason: str, *, full: bool) -> None:
        super().__init__(f"Ray cannot start here: {reason}")
        self.full = full


@contextlib.contextmanager
def _started(ray: Any, cpus: int, memory: int) -> Iterator[None]:
    with private_folder(short_base()) as folder:
        try:
            with loopback(), without_idlers(), in_own_groups():
                ray.init(
                    address="local",
                    num_cpus=cpus,
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    _memory=max(memory, 2**30),
                    _temp_dir=str(folder / RAY_FOLDER),
                    _node_ip_address=LOOPBACK,
                    **_QUIET,
                )
        except Exception as error:  # Ray raises a plain Exception if its start takes too long
            full = full_for_ray(folder)
            ray.shutdown()
            raise _StartFailed(full or " ".join(str(error).split()), full=bool(full)) from None
        try:
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def loopback() -> Iterator[None]:
    """Make Ray use 127.0.0.1 in the block if that address is given to it ([Note: loopback])."""
    services: Any = importlib.import_module("ray._private.services")

    def unchanged(host: Any) -> Any:
        return host

    before = services.resolve_ip_for_localhost
    services.resolve_ip_for_localhost = unchanged
    try:
        yield
    finally:
        services.resolve_ip_for_localhost = before


@contextlib.contextmanager
def without_idlers() -> Iterator[None]:
    """Make Ray start no processes in the block that pipetrain does not use: its autoscaler, the server of its client,
    and the process that copies workers' logs to the driver."""
    parameter: Any = importlib.import_module("ray._private.parameter")
    before = parameter.RayParams
    unused = {"no_monitor": True, "include_log_monitor": False, "ray_client_server_port": None}
    parameter.RayParams = lambda *args, **options: before(*args, **{**options, **unused})
    try:
        yield
    finally:
        parameter.RayParams = before


@contextlib.contextmanager
def in_own_groups() -> Iterator[None]:
    """Start Ray's processes in the block in process groups of their own: a Ctrl-C or a SIGTERM for this process's group
    must not end them before the workers' state is saved. They end with this process nevertheless."""
    services: Any = importlib.import_module("ray._private.services")
    before = services.ConsolePopen
    services.ConsolePopen = partial(before, process_group=0)
    try:
        yield
    finally:
        services.ConsolePopen = before


_QUIET: dict[str, Any] = {
    "log_to_driver": False,
    "logging_level": "ERROR",
    "configure_logging": False,
    "namespace": "pipetrain",
}


@contextlib.contextmanager
def _joined(address: str) -> Iterator[Any]:
    ray = importlib.import_module("ray")
    try:
        ray.init(address=address, **_QUIET)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NotEnoughResources(f"no Ray cluster answers at {address}: {reason}") from None
    try:
        yield ray
    finally:
        ray.shutdown()
