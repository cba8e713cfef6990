"""/schedule: any schedule, for any number of stages and micro-batches, with its bubble and its memory."""

from __future__ import annotations

import asyncio
from typing import Any

from nicegui import ui

from cluster.dashboard.frame import MADE_WITHIN_S, frame, heading
from cluster.dashboard.lab_view import LabQuestion
from cluster.dashboard.parts import explained, facts, fill_table, kinds_key, problems_list, table
from cluster.dashboard.picture import Picture, PictureView
from cluster.dashboard.schedule_view import MOST_MICRO_BATCHES, MOST_STAGES, DryRun, Question, perform, picture_of
from cluster.dashboard.terms import TERMS
from coordinator.schedules import SCHEDULES, default_workers
from coordinator.texts import counted, share
from stages.errors import UserMistake

_ABOUT = {
    "gpipe": "All forward passes, then all backward passes. Keeps every micro-batch's activations.",
    "1f1b": "One forward, one backward, in turn, as soon as the first backward can begin. The same bubble as gpipe, "
    "and a stage keeps at most as many micro-batches as there are stages from it to the last one.",
    "interleaved-1f1b": "Each worker holds several smaller stages, so that the pipeline fills and drains faster: a "
    "smaller bubble, but more messages.",
    "looped-bfs": "gpipe with several smaller stages on each worker: a smaller bubble, but more messages, and the "
    "activations of every micro-batch.",
    "zb-h1": "Weight gradients are computed later, in gaps that would be bubbles: half of the bubble of 1f1b with "
    "the same memory, if F, I and W take equally long.",
    "zb-h2": "Like zb-h1, but workers run more forward passes first: no worker idles between its first and its last "
    "action of a step, but a stage keeps up to twice as many micro-batches.",
    "zbv": "Two stages a worker in a V: the first worker holds the first and the last stage. No worker idles between "
    "its first and its last action, with the memory of 1f1b.",
    "v-half": "Stages in a V as in zbv, with about half of the memory and three quarters of the bubble of 1f1b.",
    "v-min": "Stages in a V as in zbv, with about a third of the memory of 1f1b and the same bubble.",
    "dualpipev": "Stages in a V as in zbv. In its main phase each forward is followed by the backward of another "
    "micro-batch, so that torch may overlap the two. It needs two micro-batches for each worker.",
}


_AT_ONCE = 1000
"""The most stages × micro-batches whose dry run is drawn before the page is sent; a larger one would delay the page too
long and is drawn after it."""


def register() -> None:
    """Register the page."""

    @ui.page("/schedule", response_timeout=MADE_WITHIN_S)
    async def schedule_page(
        schedule: str = "1f1b", stages: int = 4, micro_batches: int = 8, workers: int = 0, backward: float = 1.0
    ) -> None:
        with frame("Schedules", "/schedule"):
            question = Question(schedule, stages, micro_batches, workers, backward)
            page = _Schedule(question)
            if question.problems() or question.stages * question.micro_batches <= _AT_ONCE:
                await page.draw()
            ui.timer(0.05, page.draw)


class _Schedule:
    """The page of one reader."""

    def __init__(self, question: Question) -> None:
        heading("Schedules", 1)
        with ui.element("section").classes("panel stack"):
            with ui.element("div").classes("fields"):
                known = question.schedule in SCHEDULES
                self._schedule = ui.select(
                    list(SCHEDULES), label="Schedule", value=question.schedule if known else "1f1b", on_change=self._ask
                ).props("outlined dense")
                self._stages = self._number("Stages p", question.stages, 1, MOST_STAGES)
                self._micro_batches = self._number("Micro-batches m", question.micro_batches, 1, MOST_MICRO_BATCHES)
                self._workers = self._number("Workers (0: default)", question.workers, 0, MOST_STAGES)
                self._backward = self._number("time of I and of W", question.backward, 0.05, 20, step=0.25)
            self._about = ui.label().classes("muted")
            self._compare = ui.link("Compare all schedules in the lab", "/lab")
            self._problems = problems_list()
        with ui.element("section").classes("panel stack") as self._picture:
            self._facts = facts(
                "bubble", "by the formula", "bubble rate", "as papers count", "workers", "length", "most kept"
            )
            self._view = PictureView(unit="F", label="The actions of each worker")
            with ui.element("div"):
                kinds_key()
        with ui.element("section").classes("panel") as self._by_stage:
            heading("By stage")
            self._table = table("stage", "worker", "micro-batches kept", "idle")
        self._wanted: Question | str = question
        self._drawn: Question | str | None = None

    def _number(self, label: str, value: float, low: float, high: float, step: float = 1) -> ui.number:
        inside = min(high, max(low, value))  # an address may contain any number
        field = ui.number(
            label[:1].upper() + label[1:], value=inside, min=low, max=high, step=step, on_change=self._ask
        )
        return explained(field.props("outlined dense debounce=150"), TERMS.get(label, ""))

    def _question(self) -> Question | str:
        values = [self._stages.value, self._micro_batches.value, self._workers.value]
        if any(value is None or value != int(value) for value in values) or self._backward.value is None:
            return "stages, micro-batches and workers must be whole numbers, and the time of I and of W a number"
        stages, micro_batches, workers = map(int, values)
        return Question(str(self._schedule.value), stages, micro_batches, workers, float(self._backward.value))

    def _ask(self) -> None:
        self._wanted = self._question()

    async def draw(self) -> None:
        """Draw the last question, or show its problems. A question that comes meanwhile is drawn at the next call."""
        wanted = self._wanted
        if wanted == self._drawn:
            return
        self._drawn = wanted
        if isinstance(wanted, str):
            self._show_problems([wanted])
            return
        self._about.set_text(_ABOUT.get(wanted.schedule, ""))
        try:
            found, picture = await asyncio.to_thread(_perform, wanted)
        except UserMistake as error:
            self._show_problems(error.problems)
            return
        self._show_problems([])
        self._show(wanted, found, picture)

    def _show(self, question: Question, found: DryRun, picture: Picture) -> None:
        path = (
            f"/schedule?schedule={question.schedule}&stages={question.stages}"
            f"&micro_batches={question.micro_batches}&workers={question.workers}&backward={question.backward:g}"
        )
        if ui.context.client.has_socket_connection:
            ui.navigate.history.replace(path)
        workers = found.timed.table.n_workers
        numbers = LabQuestion(workers, question.micro_batches, 1.0, question.backward, question.backward)
        self._compare.props["href"] = numbers.path()
        self._compare.update()
        self._view.show(picture)
        self._facts(_facts(question, found))
        bubbles = found.timed.bubbles
        fill_table(
            self._table,
            [
                (str(stage), str(worker), str(found.kept.alive[stage]), share(bubbles[worker]))
                for stage, worker in enumerate(found.timed.table.placement)
            ],
        )

    def _show_problems(self, problems: Any) -> None:
        self._problems(problems)
        for part in (self._picture, self._by_stage):
            part.set_visibility(not problems)


def _perform(question: Question) -> tuple[DryRun, Picture]:
    """Return the dry run and its picture, which take too long for the event loop. Raises UserMistake."""
    found = perform(question)
    numbers = f"{counted(question.stages, 'stage')} · {counted(question.micro_batches, 'micro-batch')}"
    return found, picture_of(f"{question.schedule} · {numbers}", found)


def _facts(question: Question, found: DryRun) -> list[str]:
    p, m, w = question.stages, question.micro_batches, found.timed.table.n_workers
    usual = w == default_workers(question.schedule, p)
    formula = ""
    if question.schedule in ("gpipe", "1f1b") and usual:
        formula = _formula("p", p, m, question.backward)
    elif question.schedule in ("interleaved-1f1b", "looped-bfs") and p % w == 0 and m % w == 0:
        formula = _formula("w", w, p // w * m, question.backward)
    return [
        share(found.timed.bubble),
        formula,
        share(found.timed.bubble_rate),
        share(found.papers_bubble, absent=""),
        str(w),
        f"{found.timed.makespan:.4g} F",
        counted(max(found.kept.together), "micro-batch"),
    ]


def _formula(letter: str, w: int, n: int, b: float) -> str:
    """Return the law of a schedule whose workers wait for the first F and the last I to pass the others, and compute n
    micro-batches, counted once a stage."""
    idle = (w - 1) * (1 + b)
    return f"({letter}−1)(F+I) idle: {share(idle / (n * (1 + 2 * b) + idle))}"
