"""/lab: all schedules side by side for given numbers, with sliders for what-if questions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from nicegui import ui

from cluster.dashboard.frame import MADE_WITHIN_S, frame, heading
from cluster.dashboard.gantt import Gantt
from cluster.dashboard.lab_view import (
    MOST_MICRO_BATCHES,
    MOST_SEARCHED,
    MOST_STAGES,
    LabAnswer,
    LabQuestion,
    lab_thread,
    perform_lab,
    search_lab,
)
from cluster.dashboard.parts import explained, fill_table, kinds_key, problems_list, table, text
from cluster.dashboard.terms import TERMS
from coordinator.texts import exact, number, share
from coordinator.timing.lab import LeftOut, Row, how_estimated
from stages.errors import PipetrainError, UserMistake

_COLUMNS = (
    *("schedule", "stages", "step alone", "in a row", "bubble", "bubble rate", "kept a worker", "messages"),
    "step from",
)
_MOST_TIME, _MOST_LATENCY = 5.0, 4.0  # of the sliders; an address may have more
_ABOUT = (
    "The same network, on as many workers, in every schedule: a dry run with your times. Schedules with two stages a "
    "worker cut each of its parts in two. Each backward pass is performed as workers do it: the input gradient (I) is "
    "sent before the weight gradient (W) is computed."
)
_DRAWN = "At most four workers of each. If they have many actions, a bar is what a worker does at a moment."


def register() -> None:
    """Register the page."""

    @ui.page("/lab", response_timeout=MADE_WITHIN_S)
    async def lab_page(
        stages: int = 8,
        micro_batches: int = 32,
        forward: float = 1.0,
        input_gradient: float = 1.0,
        weight_gradient: float = 1.0,
        latency: float = 0.0,
        memory: float = 0.0,
    ) -> None:
        with frame("Lab", "/lab"):
            question = LabQuestion(stages, micro_batches, forward, input_gradient, weight_gradient, latency, memory)
            page = _Lab(question)
            ui.timer(0.05, page.draw)


@dataclass(frozen=True, slots=True)
class _Setting:
    """A field or a slider of the page, and the settings' name."""

    name: str
    element: Any
    whole: bool


class _Lab:
    """The page of one reader."""

    def __init__(self, question: LabQuestion) -> None:
        self._wanted: LabQuestion | str = question
        self._drawn: LabQuestion | str | None = None
        self._search = self._searched = False
        self._answer: LabAnswer | None = None
        self._settings: list[_Setting] = []
        heading("Lab", 1)
        with ui.element("section").classes("panel stack"):
            ui.label(_ABOUT).classes("muted")
            with ui.element("div").classes("fields"):
                self._number("Stages p, one a worker", "stages", question.stages, MOST_STAGES, whole=True)
                self._number("Micro-batches m", "micro_batches", question.micro_batches, MOST_MICRO_BATCHES, whole=True)
                self._number("Memory, micro-batches", "memory", question.memory, 1e9, low=0, tip="memory")
            with ui.element("div").classes("fields"):
                self._slider("F", "forward", question.forward, tip="F of a worker")
                self._slider("I", "input_gradient", question.input_gradient, tip="I of a worker")
                self._slider("W", "weight_gradient", question.weight_gradient, tip="W of a worker")
                self._slider("Latency", "latency", question.latency, low=0.0, most=_MOST_LATENCY, tip="latency")
            self._computing = ui.label("computing …").classes("muted small").props("role=status")
            self._problems = problems_list()
        with ui.element("section").classes("panel stack") as self._figures:
            self._shortest = ui.label().props("role=status")
            self._gain = ui.label()
            self._table = table(*_COLUMNS)
            self._notes = ui.element("div").classes("muted small")
            with ui.element("div").classes("line"):
                self._button = ui.button("Search for a better one", color=None, on_click=self._ask_search)
                explained(
                    self._button.classes("act").props("unelevated"),
                    "Looks for a schedule for just these times, with one or two stages a worker: it begins with all "
                    "built-in ones and moves single actions. Takes some seconds.",
                )
                self._download = ui.button("Download auto.csv", color=None, on_click=self._send_csv)
                self._download.classes("act").props("unelevated")
        with ui.element("section").classes("panel stack") as self._pictures:
            self._gantt = Gantt(unit="", label="The actions of some workers in every schedule")
            with ui.element("div"):
                kinds_key()
            ui.label(_DRAWN).classes("muted small")
        self._show_parts(False)
        self._download.set_visibility(False)

    def _number(
        self, label: str, name: str, value: float, high: float, *, low: float = 1, whole: bool = False, tip: str = ""
    ) -> None:
        inside = min(high, max(low, value))  # an address may contain any number
        field = ui.number(label, value=int(inside) if whole else inside, min=low, max=high, step=1, on_change=self._ask)
        explained(field.props("outlined dense debounce=150"), TERMS.get(tip, ""))
        self._settings.append(_Setting(name, field, whole))

    def _slider(
        self, label: str, name: str, value: float, *, low: float = 0.1, most: float = _MOST_TIME, tip: str
    ) -> None:
        high = max(most, min(value, 1000.0) if value == value else most)  # an address may have more, or NaN
        inside = min(high, max(low, value)) if value == value else low
        with ui.element("div").classes("slider"):
            with ui.element("div").classes("line apart small"):
                explained(text("span", label).classes("term"), TERMS[tip])
                shown = text("span", f"{inside:g}").classes("number")
            slider = ui.slider(min=low, max=high, step=0.05, value=inside)
            slider.props(f'dense aria-label="{label}" debounce=100')

            def moved() -> None:
                shown.set_text(f"{slider.value:g}")
                self._ask()

            slider.on_value_change(moved)
        self._settings.append(_Setting(name, slider, whole=False))

    def _ask(self) -> None:
        found: dict[str, Any] = {}
        for setting in self._settings:
            value = setting.element.value
            if value is None or (setting.whole and value != int(value)):
                self._wanted = "stages and micro-batches must be whole numbers, and memory a number or 0"
                return
            found[setting.name] = int(value) if setting.whole else round(float(value), 6)
        self._wanted, self._search = LabQuestion(**found), False

    def _ask_search(self) -> None:
        self._search = True

    def _send_csv(self) -> None:
        if self._answer is not None and self._answer.searched is not None:
            ui.download.content(self._answer.csv(), "auto.csv")

    async def draw(self) -> None:
        """Answer the last question, or show its problems. A question that comes meanwhile is answered at the next
        call."""
        wanted, search = self._wanted, self._search
        if wanted == self._drawn and search == self._searched:
            return
        self._drawn, self._searched = wanted, search
        if isinstance(wanted, str):
            self._show_problems([wanted])
            return
        self._computing.set_text("computing …")
        compute: Callable[[], LabAnswer] = partial(search_lab if search else perform_lab, wanted)
        try:
            answer = await lab_thread.run(compute)
        except PipetrainError as error:
            problems = error.problems if isinstance(error, UserMistake) else [str(error)]
            self._show_problems(problems, hide=not search)
            return
        finally:
            self._computing.set_text("")
        self._show_problems([])
        self._show(wanted, answer)

    def _show(self, question: LabQuestion, answer: LabAnswer) -> None:
        if ui.context.client.has_socket_connection:
            ui.navigate.history.replace(question.path())
        self._answer = answer
        self._shortest.set_text(answer.shortest)
        self._gain.set_text("" if answer.searched is None else answer.searched.gain_text())
        self._download.set_visibility(answer.searched is not None)
        self._button.set_enabled(question.stages * question.micro_batches <= MOST_SEARCHED)
        fill_table(self._table, [_cells(row) for row in answer.rows])
        self._notes.clear()
        with self._notes:
            for row in answer.rows:
                if isinstance(row, LeftOut):
                    ui.label(f"{row.schedule} {row.why}.")
            for line in how_estimated(answer.rows):
                ui.label(f"{line[:1].upper()}{line[1:]}.")
            if question.stages * question.micro_batches > MOST_SEARCHED:
                ui.label(f"A search is possible for at most {MOST_SEARCHED:,} stages × micro-batches.")
        self._gantt.show(answer.panels, answer.shortest)

    def _show_problems(self, problems: Any, *, hide: bool = True) -> None:
        self._problems(problems)
        self._show_parts(not (problems and hide))

    def _show_parts(self, shown: bool) -> None:
        for part in (self._figures, self._pictures):
            part.set_visibility(shown)


def _cells(row: Row | LeftOut) -> tuple[str, ...]:
    if isinstance(row, LeftOut):
        return (row.schedule, *[""] * (len(_COLUMNS) - 1))
    return (
        row.schedule,
        f"{row.n_stages:,}",
        row.step_text(),
        number(row.span),
        share(row.bubble),
        share(row.bubble_rate),
        f"{exact(row.kept)}{'' if row.fits else ' (too many)'}",
        f"{row.messages:,}",
        row.origin_text(),
    )
