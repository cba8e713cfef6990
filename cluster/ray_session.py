"""A connection to Ray: an embedded local cluster that leaves nothing behind, or one that runs already."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.errors import NotEnoughResources

_OBJECT_STORE_BYTES = 256 * 2**20  # gathered weights pass through it; what does not fit is spilled to disk
_LEFTOVER_PREFIX = "pipetrain-ray-"


@contextlib.contextmanager
def ray_session(address: str | None, *, cpus: int, memory: int) -> Iterator[Any]:
    """Ray, ready to use; `address` None starts an embedded cluster with `cpus` CPUs and `memory` bytes to give away.

    The embedded one listens with a token of its own, keeps its files in one temporary folder, and is gone with this
    process however it ends. Raises NotEnoughResources if a cluster at `address` does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Ray tells of a dead worker on standard output, which is ours; our own error tells it with its place
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")
    if address is not None:
        os.environ.setdefault("RAY_AUTH_MODE", "token" if "RAY_AUTH_TOKEN" in os.environ else "disabled")
        with _joined(address) as ray:
            yield ray
        return
    _sweep_leftovers()
    folder = Path(tempfile.mkdtemp(prefix=f"{_LEFTOVER_PREFIX}{os.getpid()}-"))
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    import ray

    try:
        ray.init(
            num_cpus=cpus,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            _memory=max(memory, 2**30),
            _temp_dir=str(folder),
            _node_ip_address="127.0.0.1",
            **_QUIET,
        )
        yield ray
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


_QUIET: dict[str, Any] = {
    "log_to_driver": False,
    "logging_level": "ERROR",
    "configure_logging": False,
    "namespace": "pipetrain",
}


@contextlib.contextmanager
def _joined(address: str) -> Iterator[Any]:
    import ray

    try:
        ray.init(address=address, **_QUIET)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NotEnoughResources(f"no Ray cluster answers at {address}: {reason}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _sweep_leftovers() -> None:
    """Remove the folders of embedded clusters whose process was killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_LEFTOVER_PREFIX}*"):
        pid = folder.name.removeprefix(_LEFTOVER_PREFIX).split("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)
