"""The embedded Ray cluster."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.actors.private_folders import sweep_leftovers
from tests.other_user import needs_nobody, what_nobody_can_do


def test_everything_embedded_listens_on_loopback_only(ray: Any) -> None:
    ray.get(ray.remote(lambda: None).remote())  # a worker process is up
    ours = {process.pid for process in psutil.Process().children(recursive=True)}
    listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.pid in ours]
    assert listening
    assert {c.laddr.ip.removeprefix("::ffff:") for c in listening} == {"127.0.0.1"}


def test_ray_starts_no_process_that_is_not_used(ray: Any) -> None:
    """Each unused process would take a second of a core before the first step."""
    ray.get(ray.remote(lambda: None).remote())
    running = " ".join(part for process in psutil.Process().children(recursive=True) for part in process.cmdline())
    assert "gcs_server" in running
    assert [name for name in ("monitor.py", "ray.util.client") if name in running] == []


@needs_nobody
def test_another_user_of_the_machine_can_do_nothing_to_its_files(ray: Any) -> None:
    """Ray itself makes its folder writable for everybody."""
    ray.get(ray.remote(lambda: None).remote())
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    folder = next(parent for parent in session.parents if parent.name.startswith("pipetrain-"))
    assert (session / "sockets" / "raylet").is_socket()
    assert what_nobody_can_do(folder) == []


def test_its_folder_is_kept_by_a_lock_that_ends_with_its_process(ray: Any) -> None:
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    folder = next(parent for parent in session.parents if parent.name.startswith("pipetrain-"))
    sweep_leftovers()
    assert session.exists(), "it is in use"
    with (folder / "owner").open() as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
