"""The frame of every page: its head, the links to the other pages, and a timer that runs while the page is visible."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from importlib.metadata import version

from nicegui import ui

TICK_S = 0.4
"""How often a visible page looks for news, in seconds."""
MADE_WITHIN_S = 60.0
"""The time for making a page, in seconds: much, because all CPUs may be training. NiceGUI's own limit is 3 s; after it,
NiceGUI answers 500."""
_PAGES = (("/", "Jobs"), ("/cluster", "Cluster"), ("/schedule", "Schedules"), ("/lab", "Lab"))


def head() -> str:
    """Return what the head of every page contains besides NiceGUI's own elements."""
    tag = version("pipetrain")
    return (
        f'<link rel="stylesheet" href="/assets/dashboard.css?{tag}"><script src="/assets/dashboard.js?{tag}"></script>'
    )


@contextlib.contextmanager
def frame(title: str, here: str = "", where: str = "") -> Iterator[None]:
    """Make the frame of a page; the content goes into the `with` block. `here` is the page's path if the links of every
    page include it."""
    ui.page_title(f"{title} · pipetrain")
    with ui.element("header").classes("top"):
        ui.label("pipetrain").classes("brand")
        with ui.element("nav").props('aria-label="pages"'):
            for path, name in _PAGES:
                link = ui.link(name, path)
                if path == here:
                    link.props("aria-current=page")
        if where:
            ui.label(where).classes("where muted small")
    with ui.element("main").classes("stack") as main:
        yield
    ui.skip_link(target=main)


def no_page(path: str) -> None:
    """Make the page for an address that does not exist."""
    with frame("Page not found"):
        heading("There is no such page", 1)
        ui.label(f"Nothing is at {path[:200]}. A job's page is at /jobs/ and its id.").style("overflow-wrap: anywhere")
        with ui.element("div").classes("line"):
            ui.link("All jobs", "/")
            ui.link("Submit a job", "/submit")


def every_tick(look: Callable[[], Awaitable[None]], seconds: float = TICK_S) -> None:
    """Call `look` every so many seconds while the page is visible."""
    timer = ui.timer(seconds, look)

    def seen(visible: bool) -> None:
        timer.active = visible

    ui.on("seen", lambda event: seen(bool(event.args)))


def heading(text: str, level: int = 2) -> ui.element:
    """Make a heading and return it."""
    with ui.element(f"h{level}") as found:
        ui.element("span")._text = text
    return found
