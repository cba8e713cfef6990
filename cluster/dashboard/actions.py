"""What the buttons of pages do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nicegui import ui

from cluster.dashboard.site import Site
from stages.errors import PipetrainError


async def attempt(action: Awaitable[object], done: str = "") -> bool:
    """Do it, and say what came of it; False where it was refused."""
    try:
        await action
    except PipetrainError as error:
        ui.notify(str(error), type="negative", multi_line=True, timeout=10_000, close_button="Close")
        return False
    if done:
        ui.notify(done)
    return True


async def stop_job(site: Site, job: str) -> None:
    """Ask for a job's end, after the steps under way."""
    await attempt(site.jobs.stop(job, False), f"Job {job} was asked to stop; it saves its weights")


async def confirm_delete(site: Site, job: str, then: Callable[[], object]) -> None:
    """Delete a job, once the reader has said so again."""
    with ui.dialog() as dialog, ui.card():
        ui.label(f"Delete job {job} and its files?")
        ui.label("Its metrics, logs and model are removed for good.").classes("muted")
        with ui.element("div").classes("line"):
            ui.button("Delete", color=None, on_click=lambda: dialog.submit(True)).classes("act bad").props("flat")
            ui.button("Keep", color=None, on_click=lambda: dialog.submit(False)).classes("act").props("flat autofocus")
    agreed = await dialog
    dialog.delete()
    if agreed and await attempt(site.jobs.delete(job), f"Job {job} was deleted"):
        then()
