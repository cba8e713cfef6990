"""The picture of one step: its panels, divided into windows if it has too many actions to draw at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nicegui import ui

from cluster.dashboard.gantt import MOST_BARS, Gantt, Panel, Timed, marked, panel, windows
from stages.actions import Action

_SHORTEST_BUBBLE = 0.004  # as a share of the time drawn; a shorter gap is only the overhead between two actions


@dataclass(frozen=True, slots=True)
class Picture:
    """Panels that share a time axis, each with its title and actions. `summary` describes the whole step in words.

    `panels` are those of the first of its `windows`; `window` returns those of another one.
    """

    timed: Sequence[tuple[str, Sequence[Timed]]]
    n_workers: int
    windows: Sequence[tuple[float, float]]
    panels: Sequence[Panel]
    summary: str = ""

    def window(self, place: int) -> Sequence[Panel]:
        """Return the panels of the window with this number, from 0."""
        return self.panels if place == 0 else _panels(self.timed, self.n_workers, self.windows[place])

    def window_of(self, action: Action) -> int:
        """Return the number of the window in which the first panel has this action or a part of it; 0 if none has."""
        starts = [
            start
            for _, actions in self.timed[:1]
            for _, one, start, _ in actions
            if (one.stage, one.micro_batch) == (action.stage, action.micro_batch) and one.kind in _parts(action)
        ]
        at = min(starts, default=0.0)
        return next((i for i, (since, until) in enumerate(self.windows) if since <= at < until), 0)


def _parts(action: Action) -> str:
    return "IW" if action.kind == "B" else action.kind.value


def make_picture(timed: Sequence[tuple[str, Sequence[Timed]]], n_workers: int, summary: str = "") -> Picture:
    """Return the picture of these panels' titles and actions."""
    pieces = windows([actions for _, actions in timed], MOST_BARS)
    return Picture(timed, n_workers, pieces, _panels(timed, n_workers, pieces[0]), summary)


def _panels(
    timed: Sequence[tuple[str, Sequence[Timed]]], n_workers: int, window: tuple[float, float]
) -> Sequence[Panel]:
    since, until = window
    end = max((one[3] for _, actions in timed for one in actions), default=0.0)
    shortest = _SHORTEST_BUBBLE * (min(end, until) - since)
    return [panel(title, actions, n_workers, shortest=shortest, since=since, until=until) for title, actions in timed]


class PictureView:
    """A chart of a Picture, with buttons to move through its windows if it has several."""

    def __init__(self, *, unit: str, label: str) -> None:
        self.gantt = Gantt(unit=unit, label=label)
        with ui.element("div").classes("line").props('role=group aria-label="part of the step"') as self._mover:
            self._earlier = (
                ui.button("Earlier", color=None, on_click=lambda: self._move(-1)).classes("act").props("unelevated")
            )
            self._later = (
                ui.button("Later", color=None, on_click=lambda: self._move(1)).classes("act").props("unelevated")
            )
            self._said = ui.label().classes("muted small").props("role=status")
        self._mover.set_visibility(False)
        self._place = 0
        self._picture: Picture | None = None
        self._mark: Action | None = None

    def show(self, picture: Picture, mark: Action | None = None) -> None:
        """Draw the picture at the present window. `mark` is an action that failed: a new one moves to its window."""
        if mark is not None and mark != self._mark:
            self._place = picture.window_of(mark)
        self._picture, self._mark = picture, mark
        self._draw()

    def _move(self, by: int) -> None:
        self._place += by
        self._draw()

    def _draw(self) -> None:
        picture = self._picture
        assert picture is not None, "show() sets it"
        last = len(picture.windows) - 1
        self._place = max(0, min(last, self._place))
        panels = picture.window(self._place)
        self._mover.set_visibility(last > 0)
        self._earlier.set_enabled(self._place > 0)
        self._later.set_enabled(self._place < last)
        part = ""
        if last and panels:
            since, until = panels[0].since, max(p.until for p in panels)
            part = f"part {self._place + 1} of {last + 1}: {since:.4g} to {until:.4g} {self.gantt.unit}"
        self._said.set_text(part)
        summary = ", ".join(filter(None, (picture.summary, part)))
        self.gantt.show(panels if self._mark is None else marked(panels, self._mark), summary)
