"""How good a job's network is on its validation rows: figures by class with a confusion matrix, or by target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from cluster.dashboard.frame import heading
from cluster.dashboard.parts import explained, fill_table, table, text
from cluster.run.evaluation import folded
from coordinator.texts import counted, number, share

_MOST_CLASSES = 24
_MOST_CONFUSED = 16
_SHORT = 12
_READ_IT = "A row for each class, a column for each predicted class; the stronger the colour, the more of the row"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationView:
    """The texts of the panel. `rows` are those of the table with the headings `columns`; `names` and `confusion` are
    those of the confusion matrix, empty if there is none. `notes` say what is not shown."""

    about: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    notes: str = ""


def evaluation_view(document: Mapping[str, Any]) -> EvaluationView | None:
    """Return the view of an evaluation.json; None if it has no figures by class or target, or is damaged."""
    try:
        about = f"After step {document['step']:,}, epoch {document['epoch']:,}: {counted(document['rows'], 'row')}"
        if "targets" in document:
            rows = [(t["name"], number(t["r2"]), number(t["mae"]), number(t["rmse"])) for t in document["targets"]]
            return EvaluationView(about=about, columns=("target", "R²", "MAE", "RMSE"), rows=tuple(rows))
        return _of_classes(document, about)
    except (KeyError, TypeError, ValueError, IndexError):
        return None


def _of_classes(document: Mapping[str, Any], about: str) -> EvaluationView:
    classes = document["classes"]
    order = sorted(range(len(classes)), key=lambda k: (classes[k]["f1"] is None, classes[k]["f1"] or 0.0))
    shown = [classes[k] for k in sorted(order[:_MOST_CLASSES])]
    more = len(classes) - len(shown)
    rows = [
        *((one["name"], *_shares(one), f"{one['support']:,}") for one in shown),
        ("mean of all", *_shares(document["macro"]), f"{sum(one['support'] for one in classes):,}"),
    ]
    names, confusion = folded(document, _MOST_CONFUSED) if "confusion" in document else ([], [])
    return EvaluationView(
        about=about,
        columns=("class", "precision", "recall", "F1", "rows"),
        rows=tuple(rows),
        names=tuple(names),
        confusion=tuple(map(tuple, confusion)),
        notes=f"{more:,} more classes have a higher F1; evaluation.json has them." if more > 0 else "",
    )


def _shares(one: Mapping[str, float | None]) -> tuple[str, str, str]:
    return share(one["precision"]), share(one["recall"]), share(one["f1"])


class EvaluationPanel:
    """The panel of one reader's page. Nothing is shown before the first evaluation."""

    def __init__(self) -> None:
        with ui.element("div").classes("grid") as self._place:
            pass
        self._place.set_visibility(False)
        self._shown: EvaluationView | None = None
        self._body: ui.element | None = None

    def show(self, view: EvaluationView | None) -> None:
        """Draw the view, if it is new."""
        if view is None or view == self._shown:
            return
        before, self._shown = self._shown, view
        if before is None or (before.columns, before.names) != (view.columns, view.names):
            self._build(view)
        self._fill(view)

    def _build(self, view: EvaluationView) -> None:
        self._place.clear()
        self._place.set_visibility(True)
        with self._place:
            with ui.element("section").classes("panel"):
                heading("How good it is")
                self._about = ui.label().classes("muted small")
                self._body = table(*view.columns)
                self._notes = ui.label().classes("muted small")
            if view.names:
                with ui.element("section").classes("panel"):
                    heading("Confusion")
                    ui.label(_READ_IT).classes("muted small")
                    self._cells = _heat_map(view.names)

    def _fill(self, view: EvaluationView) -> None:
        assert self._body is not None, "_build made it"
        self._about.set_text(view.about)
        self._notes.set_text(view.notes)
        fill_table(self._body, view.rows)
        if not view.names:
            return
        for cells, counts in zip(self._cells, view.confusion, strict=True):
            whole = sum(counts)
            for label, count in zip(cells, counts, strict=True):
                label.set_text(f"{count:,}")
                label.style(
                    f"--share: {math.sqrt(count / whole) if whole else 0:.3f}"
                )  # the root: few mistakes show, too


def _heat_map(names: Sequence[str]) -> list[list[ui.label]]:
    """Make an empty matrix and return its cells."""
    found = []
    with ui.element("div").classes("scroll"), ui.element("table").classes("heat"):
        with ui.element("thead"), ui.element("tr"):
            text("th").props('scope=col aria-label="class"')
            for name in names:
                _name(name, "col")
        with ui.element("tbody"):
            for row, name in enumerate(names):
                with ui.element("tr"):
                    _name(name, "row")
                    found.append([text("td") for _ in names])
                    found[-1][row].classes("right")
    return found


def _name(name: str, scope: str) -> None:
    with ui.element("th").props(f"scope={scope}"):
        short = text("span", name if len(name) <= _SHORT else f"{name[: _SHORT - 1]}…")
        if len(name) > _SHORT:
            explained(short, name).props("tabindex=0")
