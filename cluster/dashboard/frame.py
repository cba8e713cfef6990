"""What is around every page: its head, the way to the other pages, and whether anybody looks at it."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from importlib.metadata import version

from nicegui import ui

TICK_S = 0.4
"""How often a page that is seen looks for news, in seconds."""
MADE_WITHIN_S = 60.0
"""A page, on a machine whose every CPU trains. NiceGUI answers 500 after 3 s otherwise."""
_PAGES = (("/", "Jobs"), ("/cluster", "Cluster"), ("/schedule", "Schedules"))


def head() -> str:
    """What the head of every page has besides NiceGUI's own."""
    tag = version("pipetrain")
    return (
        f'<link rel="stylesheet" href="/assets/dashboard.css?{tag}"><script src="/assets/dashboard.js?{tag}"></script>'
    )


@contextlib.contextmanager
def frame(title: str, here: str = "", where: str = "") -> Iterator[None]:
    """The page's content goes inside. `here` is the path of the page among those that are always offered."""
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
    """The page at an address that is none."""
    with frame("Page not found"):
        heading("There is no such page", 1)
        ui.label(f"Nothing is at {path[:200]}. A job's page is at /jobs/ and its id.").style("overflow-wrap: anywhere")
        with ui.element("div").classes("line"):
            ui.link("All jobs", "/")
            ui.link("Submit a job", "/submit")


def every_tick(look: Callable[[], Awaitable[None]], seconds: float = TICK_S) -> None:
    """Call `look` now and again while somebody sees the page."""
    timer = ui.timer(seconds, look)

    def seen(visible: bool) -> None:
        timer.active = visible

    ui.on("seen", lambda event: seen(bool(event.args)))


def heading(text: str, level: int = 2) -> ui.element:
    """A heading; the text."""
    with ui.element(f"h{level}") as found:
        ui.element("span")._text = text
    return found
