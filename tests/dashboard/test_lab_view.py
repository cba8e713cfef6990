"""The lab's page and /api/lab, without a browser: figures, limits, pictures, and who waits for whom."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi import FastAPI
from nicegui import Client
from nicegui.page import page

from cluster.dashboard import lab_view, models, routes
from cluster.dashboard.gantt import BUBBLE
from cluster.dashboard.lab_view import LabQuestion, perform_lab, search_lab
from cluster.dashboard.one_at_a_time import OneAtATime
from cluster.dashboard.pages import lab_page
from cluster.dashboard.site import Site
from coordinator.schedules.csv_format import read_csv
from coordinator.timing.lab import LeftOut, Row
from stages.errors import Refused, UserMistake
from tests.jobs import pipetrain_here


def ask(query: str) -> tuple[int, Any]:
    """Return status and answer of /api/lab."""
    app = FastAPI()
    app.include_router(routes.make_routes(cast(Site, None)))

    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.get(f"/api/lab{query}")

    answer = asyncio.run(get())
    return answer.status_code, answer.json() if answer.status_code == 200 else answer.text


def test_the_api_answers_what_the_command_prints() -> None:
    command = pipetrain_here(
        *("lab", "--stages", "4", "--micro-batches", "6", "--times", "1,1.5,0.5", "--latency", "0.25", "--memory", "5"),
        "--json",
    )
    status, found = ask("?stages=4&micro_batches=6&input_gradient=1.5&weight_gradient=0.5&latency=0.25&memory=5")
    assert status == 200
    printed = models.Lab(**json.loads(command.stdout)).model_dump()
    assert found == printed
    assert found["schedules"][-1]["left_out"] == "needs at least 8 micro-batches"


def test_ten_thousand_workers_are_answered_too() -> None:
    _, found = ask("?stages=10000&micro_batches=40000")
    assert {row["origin"] for row in found["schedules"]} == {"law"}


@pytest.mark.parametrize(
    ("question", "problem"),
    [
        (LabQuestion(stages=0), "stages: got 0, must be 1 to 10,000"),
        (LabQuestion(micro_batches=10**9), "micro_batches: got 1000000000, must be 1 to 100,000"),
        (LabQuestion(input_gradient=0), "input_gradient: got 0, must be 0.001 to 1000"),
        (LabQuestion(forward=float("nan")), "forward: got nan, must be 0.001 to 1000"),
        (LabQuestion(latency=-1), "latency: got -1, must be 0 to 1000"),
        (LabQuestion(memory=-2), "memory: got -2, must be the most micro-batches that a worker can keep, or 0"),
        (
            LabQuestion(memory=2),
            "memory: 2 micro-batches a worker, but no schedule keeps so few; the least is 4, of v-min",
        ),
    ],
)
def test_what_cannot_be_compared_is_one_line(question: LabQuestion, problem: str) -> None:
    with pytest.raises(UserMistake) as caught:
        perform_lab(question)
    assert caught.value.problems == (problem,)


def test_a_search_that_is_too_large_or_finds_nothing_is_one_line() -> None:
    with pytest.raises(UserMistake, match=r"64 workers × 64 micro-batches are too many to search, at most 1,024"):
        search_lab(LabQuestion(stages=64, micro_batches=64))
    with pytest.raises(UserMistake, match=r"0\.5 micro-batches a worker, but a worker keeps at least 1"):
        search_lab(LabQuestion(stages=2, micro_batches=3, memory=0.5))


def test_a_searched_schedule_has_its_gain_and_is_a_file() -> None:
    found = search_lab(LabQuestion(stages=2, micro_batches=4, input_gradient=1.5, weight_gradient=0.7, latency=0.3))
    assert found.searched is not None
    assert found.rows[-1] is found.searched.row
    assert found.document["gain"] == found.searched.gain
    program = read_csv(found.csv().decode())
    assert (program.n_workers, program.n_micro_batches) == (2, 4)


def test_the_address_has_the_settings() -> None:
    assert LabQuestion().path() == "/lab"
    path = LabQuestion(stages=3, latency=0.25, memory=2).path()
    assert parse_qs(urlsplit(path).query) == {"stages": ["3"], "latency": ["0.25"], "memory": ["2"]}


@pytest.mark.parametrize("question", [LabQuestion(stages=3, micro_batches=4), LabQuestion(), LabQuestion(9999, 40_000)])
def test_the_pictures_share_one_axis_and_have_few_bars(question: LabQuestion) -> None:
    answer = perform_lab(question)
    rows = [row for row in answer.rows if isinstance(row, Row)]
    assert len(answer.panels) == len(rows)
    longest = max(row.step for row in rows)
    for row, panel in zip(rows, answer.panels, strict=True):
        assert (panel.since, panel.until) == (0.0, longest)
        assert panel.n_workers == len(panel.workers or ()) <= 4
        assert len(panel.bars) <= 4 * 2 * 150
        drawn = [bar for bar in panel.bars if bar[3] != BUBBLE]
        assert {bar[0] for bar in drawn} == set(range(panel.n_workers))
        assert {bar[9] for bar in panel.bars} == set(panel.workers or ())
        assert max(bar[2] for bar in panel.bars) <= longest * (1 + 1e-9)
        busy = sum(bar[2] - bar[1] for bar in drawn) / (panel.n_workers * row.step)
        assert busy == pytest.approx(1 - row.bubble, abs=0.12), "what is drawn has the shares of the step"


def test_a_small_step_is_drawn_action_by_action() -> None:
    (panel,) = (panel for panel in perform_lab(LabQuestion(2, 3)).panels if panel.title.startswith("1f1b"))
    assert panel.title == "1f1b: 11, bubble 18.2%"
    assert sum(bar[3] != BUBBLE for bar in panel.bars) == 2 * 3 * 3
    assert all(bar[5] >= 0 for bar in panel.bars if bar[3] != BUBBLE)


def test_readers_are_answered_in_one_thread_that_is_not_the_event_loop_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of a hundred readers could take a thread that the store needs."""
    threads: list[threading.Thread] = []

    def note(question: LabQuestion) -> lab_view.LabAnswer:
        threads.append(threading.current_thread())
        return perform_lab(question)

    monkeypatch.setattr(lab_page, "perform_lab", note)
    monkeypatch.setattr(routes, "perform_lab", note)

    async def open_page() -> list[str]:
        with Client(page("/lab")) as client:
            found = lab_page._Lab(LabQuestion(2, 3))
            await found.draw()
            assert isinstance(found._answer, lab_view.LabAnswer)
            left_out = [row.schedule for row in found._answer.rows if isinstance(row, LeftOut)]
        client.delete()
        return left_out

    assert asyncio.run(open_page()) == ["dualpipev"]
    assert ask("?stages=2&micro_batches=5")[0] == 200
    assert len(threads) == 2
    assert len(set(threads)) == 1
    assert threads[0] is not threading.main_thread()


def test_more_readers_than_can_wait_are_told_to_try_again() -> None:
    queue, go, running = OneAtATime("lab", most_waiting=2), threading.Event(), threading.Event()

    def compute() -> int:
        running.set()
        assert go.wait(60)
        return 1

    async def ask_all() -> tuple[str, list[int]]:
        first = [asyncio.create_task(queue.run(compute)) for _ in range(2)]
        await asyncio.to_thread(running.wait, 60)
        with pytest.raises(Refused) as caught:
            await queue.run(compute)
        go.set()
        return str(caught.value), [await task for task in first]

    said, found = asyncio.run(ask_all())
    assert (said, found) == ("lab: 2 other requests are being computed; try again in a moment", [1, 1])
    assert asyncio.run(queue.run(lambda: 2)) == 2, "their places are free again"


def test_a_reader_who_went_away_takes_a_place_until_the_thread_is_free() -> None:
    """Each reader who came and went away gave room for one more computation behind the one that goes on."""
    queue, go, running = OneAtATime("lab", most_waiting=1), threading.Event(), threading.Event()

    def compute() -> None:
        running.set()
        assert go.wait(60)

    async def ask_all() -> None:
        away = asyncio.create_task(queue.run(compute))
        await asyncio.to_thread(running.wait, 60)
        away.cancel()
        with pytest.raises(asyncio.CancelledError):
            await away
        with pytest.raises(Refused, match="1 other requests are being computed"):
            await queue.run(lambda: None)

    try:
        asyncio.run(ask_all())
    finally:
        go.set()
    queue._thread.shutdown()
    assert queue._waiting == 0, "its place is free again"


def test_an_impossible_number_on_the_page_hides_the_figures_and_a_right_one_brings_them_back() -> None:
    async def open_page() -> list[tuple[bool, bool]]:
        seen = []
        with Client(page("/lab")) as client:
            found = lab_page._Lab(LabQuestion(2, 3))
            for memory in (0, 0.25, 0):
                found._wanted = LabQuestion(2, 3, memory=memory)
                await found.draw()
                seen.append((found._figures.visible, found._pictures.visible))
        client.delete()
        return seen

    assert asyncio.run(open_page()) == [(True, True), (False, False), (True, True)]
