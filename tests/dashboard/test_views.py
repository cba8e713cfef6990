"""The texts and models that pages and /api make of figures, logs and states, without a browser."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from nicegui import Client, ui
from nicegui.page import page

from cluster.dashboard import models, routes
from cluster.dashboard.buttons import attempt, stop_noted
from cluster.dashboard.log_tail import RUNNER, LogTail
from cluster.dashboard.pages import cluster_page, schedule_page
from cluster.dashboard.pages.job_page import FACTS, figures, what_next
from cluster.dashboard.pages.job_parts import (
    _NAMES,
    begun,
    no_picture,
)
from cluster.dashboard.pages.job_rows import JobRow, row_view
from cluster.dashboard.parts import Rows, term
from cluster.dashboard.schedule_view import Question, perform
from cluster.dashboard.site import Site
from cluster.dashboard.terms import TERMS
from cluster.service import store
from cluster.service.entry import JobView
from cluster.service.home import Home
from cluster.service.job_stats import JobStats
from cluster.service.jobs import Jobs
from cluster.service.records import EventRecord, JobDocument, JobRecord
from cluster.service.stats_board import StatsBoard
from cluster.service.store import Store
from coordinator.queue.job_queue import Needs
from coordinator.queue.job_states import Queued, Running, Starting, State, StopAsked, Stopped, Succeeded


def record(state: State, job: str = "job1") -> JobRecord:
    needs = Needs(workers=2, cpus=1, memory=0)
    return JobRecord(
        id=job, name="a", submission_id=job, priority=0, order=0, needs=needs, state=state, submitted_at=0.0
    )


async def in_a_client(look: Callable[[Client], Awaitable[None]]) -> None:
    """Call a function on a page that no browser shows."""
    with Client(page("/")) as client:
        await look(client)
    client.delete()


# a job's page -----------------------------------------------------------------------------------------------------


def shown(job: JobRecord, stats: JobStats | None = None) -> dict[str, str]:
    """Return the figures at the top of a job's page that are not empty, by their names."""
    return {name: text for name, text in zip(FACTS, figures(job, stats, None, None), strict=True) if text}


def test_a_job_that_has_ended_took_its_time_and_runs_no_more() -> None:
    runs = shown(replace(record(Running(attempt=1)), started_at=time.time() - 60))
    assert (runs.get("running"), runs.get("took")) == ("60 s", None)
    ended = shown(replace(record(Succeeded(attempt=1)), started_at=100.0, ended_at=102.7))
    assert (ended.get("running"), ended.get("took")) == (None, "2.7 s")


def test_the_speed_of_a_job_is_not_that_of_one_step() -> None:
    stats = JobStats(job="job1", name="a", attempt=1)
    row = {"kind": "step", "epoch": 1, "samples": 100, "loss": 1.0, "grad_norm": 1.0, "learning_rate": 0.1}
    for step in range(1, 41):
        slow = step % 4 == 0
        stats.take_row({**row, "step": step, "seconds": 0.4 if slow else 0.1, "bubble": 0.8 if slow else 0.1})
    found = shown(record(Running(attempt=1)), stats)
    assert found["samples/s"] == f"{400 / 0.7:,.0f}"
    assert found["bubble, measured"] == f"{100 * (0.3 * 0.1 + 0.4 * 0.8) / 0.7:.1f}%"


@pytest.mark.parametrize(
    ("ended", "attempt", "steps", "looked", "said"),
    [
        (False, 0, 0, False, "The picture appears after the first steps."),
        (False, 1, 0, True, "The picture appears after the first steps."),
        (False, 1, 5, False, "Reading the job's figures …"),
        (False, 1, 5, True, "The picture appears when a step is sampled."),
        (True, 0, 0, True, "The job never started."),
        (True, 1, 0, True, "The job did no step."),
        (True, 3, 0, True, "Attempt 3 did no step."),
        (True, 1, 5, False, "Reading the job's figures …"),
        (True, 1, 5, True, "None of the job's steps was sampled."),
    ],
)
def test_a_page_without_a_picture_says_why(ended: bool, attempt: int, steps: int, looked: bool, said: str) -> None:
    assert no_picture(ended, attempt, steps, looked=looked) == said


# logs -------------------------------------------------------------------------------------------------------------


def test_what_a_killed_process_left_of_its_last_line_is_shown(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    file = tmp_path / "logs" / "runner.log"
    tail = LogTail(tmp_path, RUNNER, 10)
    file.write_text("first\nhal")
    assert tail.look(ended=False)
    assert list(tail.lines) == ["first"]
    assert not tail.look(ended=False)
    with file.open("a") as opened:
        opened.write("f\nkilled in the mid")
    assert tail.look(ended=False)
    assert tail.look(ended=True)
    assert not tail.look(ended=True)
    assert list(tail.lines) == ["first", "half", "killed in the mid"]


def test_a_long_line_is_cut_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "runner.log").write_text("x" * 5000 + "\nshort\n")
    tail = LogTail(tmp_path, RUNNER, 10)
    tail.look(ended=False)
    assert list(tail.lines) == ["x" * 4096 + "… (904 characters more)", "short"]


def test_the_end_of_a_long_file_begins_with_a_whole_line_or_says_that_it_does_not(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    file = tmp_path / "logs" / "runner.log"
    file.write_text("".join(f"line {i}\n" for i in range(10_000)))
    tail = LogTail(tmp_path, RUNNER, 100_000)
    tail.look(ended=False)
    first = int(tail.lines[0].removeprefix("line "))
    assert list(tail.lines) == [f"line {i}" for i in range(first, 10_000)]
    file.write_text("y" * 100_000 + "\n")
    tail = LogTail(tmp_path, RUNNER, 10)
    tail.look(ended=False)
    assert [line[:3] for line in tail.lines] == ["…yy"]


# stopping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (Starting(attempt=1, stop=StopAsked(at=0.0, now=False)), "still starting"),
        (Running(attempt=1, stop=StopAsked(at=0.0, now=False)), "saves its weights"),
        (Running(attempt=1, stop=StopAsked(at=0.0, now=True)), "ended at once"),
        (Stopped(attempt=0, how="stopped in the queue, before it began"), "before it began"),
        (Succeeded(attempt=1), "had ended before: it is SUCCEEDED"),
    ],
)
def test_what_is_said_of_a_stop_is_what_becomes_of_the_job(state: State, said: str) -> None:
    text = stop_noted(record(state))
    assert said in text
    assert ("saves its weights" in text) == (said == "saves its weights")


def test_a_trace_of_a_job_that_was_deleted_is_refused_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(ui, "notify", lambda text, **_: said.append(text))
    opened = Store(tmp_path / "jobs.sqlite3")
    jobs = Jobs(Home(tmp_path), opened, max_queued=1, send=lambda _: None)
    site = Site(jobs, *cast(Any, [None] * 3))
    assert asyncio.run(attempt(site.trace("gone", 3), "traced")) is False
    opened.close()
    assert [("gone" in text, "traced" in text) for text in said] == [(True, False)]


# dry runs ---------------------------------------------------------------------------------------------------------


def test_a_dry_run_works_out_its_bubbles_once() -> None:
    found = perform(Question("1f1b", 5, 9)).timed
    assert found.bubbles is found.bubbles
    assert found.bubble == pytest.approx(8 / 35)


def test_dry_runs_leave_the_event_loop_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    performed: list[threading.Thread] = []

    def note(question: Question) -> Any:
        performed.append(threading.current_thread())
        return perform(question)

    for module in (routes, schedule_page):
        monkeypatch.setattr(module, "perform", note)
    app = FastAPI()
    app.include_router(routes.make_routes(cast(Site, None)))

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.get("/api/schedule?stages=6&micro_batches=7")

    answer = asyncio.run(ask())
    assert models.Schedule.model_validate(answer.json()).micro_batches == 7

    async def open_page() -> None:
        with Client(page("/schedule")) as client:
            await schedule_page._Schedule(Question("gpipe", 6, 8)).draw()
        client.delete()

    asyncio.run(open_page())
    assert [thread is threading.main_thread() for thread in performed] == [False, False]


# placement --------------------------------------------------------------------------------------------------------


def test_who_holds_which_stage_is_known_from_the_first_step_on(tmp_path: Path) -> None:
    opened = Store(tmp_path / "jobs.sqlite3")
    job = record(Queued())
    events = [
        EventRecord(seq=1, time=0.0, kind="submitted", attempt=0, text="", details={}),
        EventRecord(seq=2, time=0.0, kind="starting", attempt=1, text="", details={"placement": [0, 1, 0, 1]}),
        EventRecord(seq=3, time=0.0, kind="starting", attempt=2, text="", details={"placement": [0, 0, 1, 1]}),
    ]

    async def placements() -> list[list[int]]:
        await opened.write(store.insert(job, JobDocument(document="{}", files={}), events[0]))
        for event in events[1:]:
            await opened.write(store.update(job, [event]))
        site = Site(cast(Any, SimpleNamespace(store=opened)), *cast(Any, [None] * 3))
        return [await site.placement(job, JobStats(job=job.id, name="a", attempt=n)) for n in (1, 2, 3)]

    try:
        assert asyncio.run(placements()) == [[0, 1, 0, 1], [0, 0, 1, 1], []]
    finally:
        opened.close()


# the cluster ------------------------------------------------------------------------------------------------------


def test_the_rows_of_the_cluster_stay_the_same_while_its_jobs_train(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster: models.Cluster

    async def now(_: Site) -> models.Cluster:
        return cluster

    def state(step: int, reason: str, *jobs: str) -> models.Cluster:
        facts: dict[str, Any] = {
            "state": "RUNNING",
            "reason": reason,
            "step": step,
            "steps_total": 10,
            "workers": 1,
            "cpus": 1,
            "memory": 0,
        }
        active = [models.Job.model_construct(id=job, name=job, **facts) for job in jobs]
        facts = {"version": "1", "ray": "up", "ray_address": "", "nodes": [], "counts": {}}
        return models.Cluster(**facts, active=active, waiting=[], max_queued=9)

    async def look_thrice(client: Client) -> None:
        nonlocal cluster

        def links() -> list[tuple[int, str]]:
            return [(e.id, e.text) for e in client.elements.values() if isinstance(e, ui.link)]

        cluster = state(1, "", "a", "b")
        shown = cluster_page._ClusterPage(cast(Site, SimpleNamespace(jobs=SimpleNamespace(board=StatsBoard()))))
        await shown.look()
        before = links()
        assert [name for _, name in before] == ["a", "b"]
        cluster = state(2, "attempt 2", "a", "b")
        await shown.look()
        assert links() == before, "the element with the keyboard's focus was replaced"
        said = [e.text for e in client.elements.values() if isinstance(e, ui.label)]
        assert {"RUNNING: attempt 2", "20%"} <= set(said)
        cluster = state(3, "", "b")
        await shown.look()
        assert [name for _, name in links()] == ["b"]

    monkeypatch.setattr(cluster_page, "cluster_model", now)
    asyncio.run(in_a_client(look_thrice))


def test_a_job_without_figures_says_what_it_needs_instead_of_empty_boxes() -> None:
    said = what_next(record(Queued()))
    assert said.startswith("The job needs 2 workers with 1 CPU each. It starts when these are free for it; ")
    assert "It is being started" in what_next(replace(record(Starting(attempt=1)), attempt=1))
    trains = replace(record(Running(attempt=1)), attempt=1)
    assert begun(trains)
    for other in (trains, record(Stopped(attempt=0, how="")), replace(record(Succeeded(attempt=1)), attempt=1, step=3)):
        assert what_next(other) == ""


def test_every_short_word_of_the_pages_is_explained() -> None:
    words = (set(FACTS) | {*_NAMES.values()}) - {"checkpoint", "recovery"}
    words |= {"most kept", "time of I and of W", "activations", "peak of the process", "holds", "micro-batches kept"}
    assert words <= TERMS.keys()

    async def look(client: Client) -> None:
        with client:
            (word,) = term("th", "most kept")
            assert word.props["data-tip"] == TERMS["most kept"]
            assert "term" not in term("th", "event").classes

    asyncio.run(in_a_client(look))


# the list of jobs -------------------------------------------------------------------------------------------------


def test_a_row_of_a_job_stays_the_same_elements_whatever_comes_and_goes_around_it() -> None:
    async def look(client: Client) -> None:
        with client:
            rows = Rows(ui.element("tbody"), made)
            first = rows.show(["b", "a"])
            assert rows.show(["c", "b", "a"])[1:] == first
            assert rows.show(["a", "c"])[0] is first[1], "another order must make no new row"
            order = [row.element for row in rows.show(["a", "c"])]
            assert order == list(place_of(order[0])), "the page has these rows in this order, and no others"

    def made(job: str) -> tuple[ui.element, JobRow]:
        row = JobRow(job, stop=nothing, delete=nothing)
        return row.element, row

    async def nothing(_: str) -> None:
        pass

    def place_of(element: ui.element) -> ui.element:
        assert element.parent_slot is not None
        return element.parent_slot.parent

    asyncio.run(in_a_client(look))


def test_the_list_shows_accuracy_as_accuracy_and_not_below_the_loss() -> None:
    job = replace(record(Succeeded(attempt=1)), validation_accuracy=0.986, loss=0.0213)
    shown = row_view(job, JobView(record=job, reason=""), None, [], 0.0)
    assert (shown.loss, shown.validation) == ("0.0213", "98.6%")
