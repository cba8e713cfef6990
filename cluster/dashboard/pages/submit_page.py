"""/submit: submit a job from a form or from a job file's text; problems are shown at their lines."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from nicegui import ui

from cluster.dashboard.frame import MADE_WITHIN_S, frame, heading
from cluster.dashboard.parts import problems_list
from cluster.dashboard.site import Site
from cluster.dashboard.submission import NotSubmitted, submit_text
from cluster.dashboard.yaml_lines import Problem
from cluster.service.peers import is_remote_address
from coordinator.job.layer_entries import CLASSES
from coordinator.job.loss_entries import LOSS_KINDS
from coordinator.job.optimizer_sections import OPTIMIZERS
from coordinator.job.schedule_names import AUTO, SCHEDULES
from coordinator.job.source_names import BUILT_IN
from coordinator.job.yaml_text import read_yaml, write_yaml
from stages.errors import PipetrainError, UserMistake

_EXAMPLE = """\
name: digits
model:
  input: [64]
  layers:
    - linear: {units: 256}
    - relu
    - linear: {units: 256}
    - relu
    - linear: {units: 10}
  loss: cross_entropy
data:
  source: digits
training:
  epochs: 30
  batch_size: 256
  micro_batches: 8
  optimizer: {sgd: {learning_rate: 0.1, momentum: 0.9}}
pipeline:
  stages: 2
  schedule: 1f1b
"""
_LONGEST_SHOWN = 160


def register(site: Site) -> None:
    """Register the page."""

    @ui.page("/submit", response_timeout=MADE_WITHIN_S)
    async def submit_page(job: str = "") -> None:
        given = _EXAMPLE
        if job:
            with contextlib.suppress(UserMistake):
                given = await asyncio.to_thread((await site.spec((await site.find(job)).id)).to_yaml)
        with frame("Submit a job", "/"):
            heading("Submit a job", 1)
            _Submit(site, given, as_text=bool(job))


class _Submit:
    """The page of one reader."""

    def __init__(self, site: Site, given: str, *, as_text: bool) -> None:
        self._site = site
        with ui.element("section").classes("panel"):
            with ui.tabs().props('align=left dense no-caps aria-label="how to describe the job"') as tabs:
                form = ui.tab("form", "Form")
                ui.tab("yaml", "Job file (YAML)")
            with ui.tab_panels(tabs, value="yaml" if as_text else "form", animated=False):
                with ui.tab_panel(form):
                    self._form = _Form()
                    self._form_problems = problems_list()
                with ui.tab_panel("yaml"):
                    self._build_editor(given)
            with ui.element("div").classes("line").style("margin-top: 12px"):
                self._button = (
                    ui.button("Submit", color=None, on_click=self._submit).classes("act main").props("unelevated")
                )
                self._priority = (
                    ui.number("Priority", value=0, min=-1000, max=1000, step=1)
                    .props("outlined dense")
                    .style("width: 110px")
                )
                self._preempt = ui.checkbox("Jobs of a lower priority make room").props("dense")
                ui.label("Paths are those of the service's machine.").classes("muted small")
        self._tabs = tabs

    def _build_editor(self, given: str) -> None:
        ui.label("Paste a job file here. Esc, then Tab, leaves the editor.").classes("muted small")
        self._editor = ui.codemirror(given, language="YAML", indent="  ", line_wrapping=True).classes("editor")
        self._problems = problems_list(self._editor.reveal_line)

        async def follow_theme() -> None:
            dark = await ui.run_javascript("matchMedia('(prefers-color-scheme: dark)').matches", timeout=5)
            self._editor.theme = "basicDark" if dark else "basicLight"

        ui.timer(0.01, follow_theme, once=True)

    async def _submit(self) -> None:
        as_text = self._tabs.value == "yaml"
        self._button.disable()
        try:
            await self._try(as_text)
        finally:
            self._button.enable()

    async def _try(self, as_text: bool) -> None:
        content = self._editor.value if as_text else write_yaml(self._form.document())
        problems: Sequence[Any] = []
        try:
            remote = is_remote_address(self._button.client.ip)
            priority, preempt = int(self._priority.value or 0), bool(self._preempt.value)
            record = await submit_text(self._site.api, content, priority=priority, preempt=preempt, remote=remote)
            ui.navigate.to(f"/jobs/{record.id}")
        except NotSubmitted as error:
            problems = error.placed if as_text else [Problem(None, problem.text) for problem in error.placed]
        except UserMistake as error:
            problems = [Problem(None, line) for line in error.problems]
        except PipetrainError as error:
            problems = [Problem(None, str(error))]
        (self._problems if as_text else self._form_problems)(problems)
        if as_text:
            self._editor.decorations = _decorations(content, problems)


def _decorations(content: str, problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """Return the editor's marks: each line with a problem, and the problem's text behind it."""
    lines = content.split("\n")
    ends = [0] * len(lines)
    place = -1
    for number, line in enumerate(lines):
        place += len(line) + 1
        ends[number] = place
    found: list[dict[str, Any]] = []
    for problem in problems:
        if problem.line is not None and problem.line <= len(lines):
            found.append({"kind": "line", "line": problem.line, "class": "wrong-line"})
            said = problem.text[:_LONGEST_SHOWN]
            found.append({"kind": "widget", "position": ends[problem.line - 1], "text": said, "class": "wrong-text"})
    return found


class _Form:
    """A form with the entries that most jobs need; a job file can have all entries."""

    def __init__(self) -> None:
        with ui.element("div").classes("fields"):
            self._name = self._text("Name", "digits")
            self._input = self._text("Input shape (not for text)", "64")
            self._loss = ui.select(list(LOSS_KINDS), label="Loss", value="cross_entropy").props("outlined dense")
            self._source = self._text("Data: a name, path or URL", "digits", wide=True)
            self._source.set_autocomplete(list(BUILT_IN))
            self._layers = self._text("Layers: units, or entries of a job file", "256, relu, 256, relu, 10", wide=True)
            self._block = self._number("Tokens per row (text only)", None)
            self._epochs = self._number("Epochs", 30)
            self._batch = self._number("Batch size", 256)
            self._micro_batches = self._number("Micro-batches", 8)
            self._optimizer = ui.select(list(OPTIMIZERS), label="Optimizer", value="sgd").props("outlined dense")
            self._rate = self._number("Learning rate", 0.1)
            self._momentum = self._number("Momentum (sgd only)", 0.9)
            self._stages = self._number("Stages", 2)
            self._schedule = ui.select([*SCHEDULES, AUTO], label="Schedule", value="1f1b").props("outlined dense")

    def document(self) -> dict[str, Any]:
        """Return the job that the form describes. It is checked like a job file, not here."""
        shape, block = _parts(self._input.value, _value), _whole(self._block.value)
        rate: dict[str, Any] = {"learning_rate": self._rate.value}
        if self._optimizer.value == "sgd":
            rate["momentum"] = self._momentum.value
        return {
            "name": self._name.value,
            "model": {
                **({"input": shape} if shape else {}),
                "layers": _parts(self._layers.value, _layer),
                "loss": self._loss.value,
            },
            "data": {
                "source": (self._source.value or "").strip(),
                **({} if block is None else {"block": block}),
            },
            "training": {
                "epochs": _whole(self._epochs.value),
                "batch_size": _whole(self._batch.value),
                "micro_batches": _whole(self._micro_batches.value),
                "optimizer": {self._optimizer.value: rate},
            },
            "pipeline": {"stages": _whole(self._stages.value), "schedule": self._schedule.value},
        }

    def _text(self, label: str, value: str, *, wide: bool = False) -> ui.input:
        field = ui.input(label, value=value).props("outlined dense")
        return field.classes("wide") if wide else field

    def _number(self, label: str, value: float | None) -> ui.number:
        return ui.number(label, value=value).props("outlined dense step=any")


def _parts(content: str | None, read: Callable[[str], Any]) -> list[Any]:
    """Read the parts between commas. A comma inside brackets, as in `transformer: {heads: 4, times: 2}`, belongs to its
    part."""
    parts, depth = [""], 0
    for character in content or "":
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += character
    return [read(part.strip()) for part in parts if part.strip()]


def _value(part: str) -> Any:
    value, problems = read_yaml(part)
    return part if problems else value


def _layer(part: str) -> Any:
    value = _value(part)
    return {"linear": {"units": value}} if isinstance(value, int) or value == CLASSES else value


def _whole(value: float | None) -> float | int | None:
    return int(value) if value is not None and value == int(value) else value
