"""The embedded Ray cluster."""

from __future__ import annotations

from typing import Any

import psutil


def test_everything_embedded_listens_on_loopback_only(ray: Any) -> None:
    ray.get(ray.remote(lambda: None).remote())  # its worker process is up
    ours = {process.pid for process in psutil.Process().children(recursive=True)}
    listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.pid in ours]
    assert listening
    assert {c.laddr.ip.removeprefix("::ffff:") for c in listening} == {"127.0.0.1"}
