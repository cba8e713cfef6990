"""The actions of the pages' buttons."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from nicegui import ui

from cluster.dashboard.site import Site
from cluster.dashboard.submission import resume_job
from cluster.service.peers import is_remote_address
from cluster.service.records import JobRecord
from coordinator.queue.job_states import Running, Starting, Stopped
from stages.errors import PipetrainError

T = TypeVar("T")


async def attempt(action: Awaitable[T], done: str | Callable[[T], str]) -> bool:
    """Perform the action and show `done`, or its text for the result. If the action is refused, show the error and
    return False."""
    try:
        result = await action
    except PipetrainError as error:
        ui.notify(str(error), type="negative", multi_line=True, timeout=10_000, close_button="Close")
        return False
    ui.notify(done if isinstance(done, str) else done(result))
    return True


async def stop_job(site: Site, job: str) -> None:
    """Request that a job stops after the steps in progress."""
    await attempt(site.jobs.stop(job, False), stop_noted)


def stop_noted(record: JobRecord) -> str:
    """Describe the result of a request to stop a job, from its record afterwards."""
    match record.state:
        case Starting() | Running() if record.state.stop is not None and record.state.stop.now:
            return f"Job {record.id} is being ended at once"
        case Starting():
            return f"Job {record.id} is stopping; it is still starting, and ends as soon as it can"
        case Running():
            return f"Job {record.id} is stopping; it finishes the steps in progress and saves its weights"
        case Stopped() as state:
            return f"Job {record.id} is STOPPED: {state.how}"
    return f"Job {record.id} had ended before: it is {record.state.name}"


async def ask_and_resume(site: Site, job: str) -> None:
    """Submit a job that goes on with `job`, with the changes that the reader gives in a dialog, and open its page."""
    with ui.dialog() as dialog, ui.card():
        ui.label(f"Go on with job {job}")
        ui.label("A new job begins with its newest checkpoint. This job stays as it is.").classes("muted")
        changes = ui.input("Changes, such as training.epochs=40 pipeline.stages=3").props("outlined dense autofocus")
        with ui.element("div").classes("line"):
            ui.button("Go on", color=None, on_click=lambda: dialog.submit(True)).classes("act main").props("unelevated")
            ui.button("Cancel", color=None, on_click=lambda: dialog.submit(False)).classes("act").props("flat")
    agreed, given, remote = await dialog, (changes.value or "").split(), is_remote_address(dialog.client.ip)
    dialog.delete()

    def open_page(record: JobRecord) -> str:
        ui.navigate.to(f"/jobs/{record.id}")
        return f"Job {record.id} goes on"

    if agreed:
        await attempt(resume_job(site, job, given, remote=remote), open_page)


async def confirm_delete(site: Site, job: str, then: Callable[[], object]) -> None:
    """Delete a job after the reader has confirmed it in a dialog, and then call `then`."""
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
