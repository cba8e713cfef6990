"""The app of the HTTP port."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from nicegui import Client, core, ui
from nicegui.page import page
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from cluster.dashboard import frame, pages
from cluster.dashboard.guard import LOOPBACK, Guard, is_open
from cluster.dashboard.routes import NoRoute, make_routes
from cluster.dashboard.site import NoSuchFile, Site
from cluster.dashboard.submission import NotSubmitted
from cluster.service.api import Api
from cluster.service.jobs import Jobs
from cluster.service.ray_keeper import RayKeeper
from cluster.service.refusals import NoSpace, QueueFull, StoreTrouble, SubmissionIdTaken
from cluster.service.store_errors import file_trouble
from cluster.service.uploads import Uploads
from stages.errors import PipetrainError, Refused, UnknownJob, UserMistake

_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (QueueFull, 429),
    (NoSpace, 507),
    (StoreTrouble, 503),
    (SubmissionIdTaken, 409),
    (UnknownJob, 404),
    (NoSuchFile, 404),
    (Refused, 409),
    (UserMistake, 422),
)
"""The status of an error is that of the first class that it belongs to."""
_RECONNECT_S = 20.0
_MESSAGES_KEPT = 100  # for a browser whose connection breaks briefly; after a longer break it loads the page again
_log = logging.getLogger(__name__)

Scrape = Callable[[str], Awaitable[tuple[bytes, str]]]
"""A function from the header Accept to the text of /metrics and its content type."""


def make_app(
    jobs: Jobs,
    keeper: RayKeeper,
    uploads: Uploads,
    api: Api,
    *,
    token: str,
    healthz: Callable[[], Awaitable[dict[str, Any]]],
    metrics: Scrape | None = None,
    names: Iterable[str] = (),
) -> FastAPI:
    """Make the app, once in a process, because NiceGUI registers pages for the whole process. `names` are host names
    that the port accepts besides those of loopback. The server must run the app's lifespan."""
    app = FastAPI(
        title="pipetrain",
        version=version("pipetrain"),
        description="Jobs of the service and their figures. Scripts that change something must send "
        "`Authorization: Bearer TOKEN`, with the token from the file `token` in the service's home.",
        openapi_url="/api/openapi.json",
        docs_url=None,  # these pages load files from other hosts
        redoc_url=None,
    )
    app.add_middleware(Guard, names=[*LOOPBACK, *names], token=token)
    app.add_exception_handler(PipetrainError, _error_response)
    app.add_exception_handler(OSError, _full)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _turned_away)

    @app.get("/healthz", include_in_schema=False)
    async def health() -> JSONResponse:
        found = await healthz()
        return JSONResponse(found, status_code=200 if found["ok"] else 503)

    if metrics is not None:

        @app.get("/metrics", include_in_schema=False)
        async def scrape(request: Request) -> Response:
            text, content_type = await metrics(request.headers.get("accept", ""))
            return Response(text, headers={"content-type": content_type})

    site = Site(jobs, keeper, uploads, api)
    router = make_routes(site)
    no_route = NoRoute([*app.routes, *router.routes])
    app.include_router(router)
    for path in ("/api", "/api/{rest:path}", "/healthz", "/metrics"):  # before NiceGUI's pages, which take every path
        app.router.routes.append(Route(path, no_route, include_in_schema=False))
    app.mount("/assets", StaticFiles(directory=Path(__file__).parent / "static"))
    _mount_pages(app, site)
    return app


def _mount_pages(app: FastAPI, site: Site) -> None:
    ui.add_head_html(frame.head(), shared=True)
    pages.register(site)
    ui.run_with(
        app,
        title="pipetrain",
        favicon=Path(__file__).parent / "static" / "icon.svg",
        dark=None,  # light or dark as the reader's system
        language="en-US",
        binding_refresh_interval=None,
        reconnect_timeout=_RECONNECT_S,
        message_history_length=_MESSAGES_KEPT,
        gzip_middleware_factory=None,  # nothing goes further than loopback, so that compression is not needed
        tailwind=False,
        show_welcome_message=False,
    )
    core.app.add_exception_handler(404, _no_page)
    core.app.on_exception(lambda error: _log.error("a page failed", exc_info=error))


async def _no_page(request: Request, error: Exception) -> Response:
    """Answer a request for an address that does not exist. A missing file of NiceGUI, and a path that is open to other
    users, get no page, because each page takes memory for a minute and a line of the log."""
    del error
    path = request.scope["path"]
    if is_open(path) or path.startswith("/_nicegui"):
        return JSONResponse({"problems": ["no such path"]}, 404)
    with Client(page(""), request=request) as client:
        frame.no_page(request.url.path)
    return client.build_response(request, 404)


async def _error_response(_: Request, error: Exception) -> JSONResponse:
    """Answer with one of our errors: every problem, and for mistakes in a job's text their lines too."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    answer: dict[str, Any] = {"problems": list(error.problems if isinstance(error, UserMistake) else (str(error),))}
    if isinstance(error, NotSubmitted):
        answer["lines"] = [{"line": problem.line, "text": problem.text} for problem in error.placed]
    return JSONResponse(answer, status)


async def _full(request: Request, error: Exception) -> JSONResponse:
    """Answer with the problem if a file cannot be read or written, for example on a full disk. Any other OSError is a
    bug."""
    refusal = file_trouble(error)
    if refusal is None:
        raise error
    return await _error_response(request, refusal)


async def _turned_away(_: Request, error: Exception) -> JSONResponse:
    """Answer a request that none of our functions handles: an unknown path or method, or a body that is no JSON."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"problems": [str(error.detail)]}, error.status_code, error.headers)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    """Answer a request with a wrong parameter or body."""
    assert isinstance(error, RequestValidationError)
    lines = [f"{'.'.join(map(str, e['loc'][1:])) or 'body'}: {e['msg']}" for e in error.errors()]
    return JSONResponse({"problems": lines}, 422)
