"""`python -m cluster.service`: the process of the service. `pipetrain up` starts it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from cluster.data.rules import SourceRules
from cluster.service.api import Api
from cluster.service.connections import MOST_CONNECTIONS
from cluster.service.crowding import Crowding, Port
from cluster.service.grpc_guard import MOST_GRPC_CONNECTIONS
from cluster.service.home import Home
from cluster.service.jobs import Jobs
from cluster.service.log_limit import AtMost
from cluster.service.metrics import Metrics
from cluster.service.outside import Outside
from cluster.service.ray_keeper import RayKeeper
from cluster.service.server import Servers
from cluster.service.store import Store
from cluster.service.uploads import KEEP_UNUSED_S, MAX_UPLOAD_BYTES, Uploads
from coordinator.job.source_names import PROTOCOLS
from coordinator.queue.job_states import SHUT_DOWN
from stages.errors import UserMistake

READY, TROUBLE = "ready", "error:"
"""`pipetrain up` waits for a line on the service's standard output that begins with one of these."""
SAVE_S = 30.0
"""How long the end of the service waits for jobs that save their state, in seconds."""
_GRACE_S = 2.0
_log = logging.getLogger(__name__)


def main() -> int:
    """Serve until SIGTERM, then return 0. Return 2 for a user's mistake, 1 for an operating system error."""
    parser = argparse.ArgumentParser(prog="python -m cluster.service")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--ray-address")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--grpc-port", type=int, default=7070)
    parser.add_argument("--http-port", type=int, default=7071)
    parser.add_argument("--http-name", action="append", default=[], help="another host name that HTTP requests may use")
    parser.add_argument("--max-queued", type=int, default=10_000)
    parser.add_argument("--max-upload", type=int, default=MAX_UPLOAD_BYTES, help="bytes")
    parser.add_argument("--keep-uploads", type=float, default=KEEP_UNUSED_S, help="seconds")
    parser.add_argument("--data-root", action="append", help="read local data only below this folder")
    parser.add_argument(
        "--data-protocols", default=",".join(PROTOCOLS), help="protocols of URLs that jobs may read; file: local paths"
    )
    parser.add_argument("--tracking-root", action="append", help="trackers write only below this folder")
    options = parser.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(AtMost())
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # else two full ports leave no files for the store
    try:
        home = Home(options.home)
        home.make()
        with home.locked():
            asyncio.run(_serve(home, options))
    except UserMistake as error:
        for problem in error.problems:
            _print_line(f"{TROUBLE} {problem}")
        return 2
    except OSError as error:
        _print_line(f"{TROUBLE} {error.filename or options.home}: {os.strerror(error.errno or 0).lower()}")
        _log.exception("the service cannot run")
        return 1
    return 0


def _print_line(line: str) -> None:
    """Write a line for `pipetrain up`, which may no longer be running."""
    with contextlib.suppress(OSError):
        print(line, flush=True)


async def _serve(home: Home, options: Any) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    keeper = RayKeeper(home, cpus=options.workers, address=options.ray_address)
    store = Store(home.store)
    jobs = Jobs(home, store, max_queued=options.max_queued, send=keeper.send)
    uploads = Uploads(home, max_bytes=options.max_upload, keep_s=options.keep_uploads)
    protocols = tuple(options.data_protocols.split(","))
    jobs.rules = SourceRules(
        roots=tuple(options.data_root) if options.data_root else None,
        protocols=protocols,
        tracking_roots=tuple(options.tracking_root) if options.tracking_root else None,
    )
    outside = Outside()
    metrics = Metrics(CollectorRegistry(), jobs, ray_up=lambda: keeper.state == "up")
    api = Api(jobs, keeper, uploads, outside)
    servers = Servers(api, home.token(), metrics)

    def dashboard() -> Any:
        from cluster.dashboard.web import make_app  # takes a second to load: keep it off the start

        return make_app(
            *(jobs, keeper, uploads, api),
            token=home.token(),
            healthz=api.health.look,
            metrics=metrics.scrape,
            names=[options.host, *options.http_name],
        )

    http_port, http = servers.listen_http(options.host, options.http_port, dashboard)
    grpc_port = await servers.listen_grpc(options.host, options.grpc_port)
    ports = (Port("gRPC", grpc_port, MOST_GRPC_CONNECTIONS), Port("HTTP", http_port, MOST_CONNECTIONS))
    crowding = api.health.crowding = Crowding(ports)
    where: dict[str, Any] = {
        "grpc": f"{options.host}:{grpc_port}",
        "http": f"{options.host}:{http_port}",
        "pid": os.getpid(),
        "version": version("pipetrain"),
        "home": str(home.folder),
        "started_at": time.time(),
    }
    home.write(home.service_file, where)
    sweeping = uploads.keep_sweeping(store.uploads_in_use)
    watching = (api.health.keep(), crowding.keep())
    loops = (keeper.keep(jobs), jobs.keep_scheduling(), jobs.keep_following(), sweeping, *watching)
    tasks = [asyncio.ensure_future(task) for task in loops]
    web = asyncio.ensure_future(http)
    try:
        await _first(ended, keeper, servers, web)
        _log.info("gRPC %s, HTTP %s, Ray %s", where["grpc"], where["http"], keeper.ray_address)
        _print_line(READY)
        os.dup2(2, 1)  # `pipetrain up` reads no further; output goes to the log
        waits = [asyncio.ensure_future(ended.wait()), *tasks, web]
        finished, _ = await asyncio.wait(waits, return_when="FIRST_COMPLETED")
        for task in finished:
            task.result()  # no loop ends by itself: raise the bug that ended this one
    finally:
        await outside.close()
        await _end(home, jobs, keeper, servers, tasks)
        with contextlib.suppress(Exception):
            await web
        store.close()
        with contextlib.suppress(OSError):
            home.service_file.unlink(missing_ok=True)


async def _first(ended: asyncio.Event, keeper: RayKeeper, servers: Servers, web: asyncio.Future[None]) -> None:
    """Wait until Ray is up and both ports answer. Raises UserMistake if Ray cannot start, or if the service is ended
    before."""
    for event in (keeper.up, servers.http_up):
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(one.wait()) for one in (ended, event)]
        await asyncio.wait([*waits, web], return_when="FIRST_COMPLETED")
        for wait in waits:
            wait.cancel()
        if keeper.failed is not None:
            raise keeper.failed
        if web.done():
            web.result()
        if ended.is_set():
            raise UserMistake("the service was ended while it was starting, as `pipetrain down` does")


async def _end(
    home: Home, jobs: Jobs, keeper: RayKeeper, servers: Servers, tasks: Sequence[asyncio.Future[Any]]
) -> None:
    """End the service and its Ray, after running jobs have saved their state. Those that did not in time are noted in
    the store as lost. The next service starts all of them again."""
    jobs.closing = True
    await servers.stop(_GRACE_S)
    running = jobs.active()
    if keeper.state == "up":
        await jobs.pause(SAVE_S)
    if not keeper.own:
        await keeper.end_runners(running)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await jobs.settle()
    await keeper.end()
    await jobs.cluster_lost(SHUT_DOWN, planned=True)
    await jobs.settle()
    await jobs.tracking_ended(_GRACE_S)


if __name__ == "__main__":
    sys.exit(main())
