"""All schedules side by side, for the lab's page and /api/lab: what is asked, its limits, and the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

import numpy as np

from cluster.dashboard.gantt import Panel, bubbles_between
from cluster.dashboard.one_at_a_time import OneAtATime
from coordinator.program.clock import Timed
from coordinator.program.table import Times, kinds_of, stages_of
from coordinator.program.thin_drawing import drawn_workers
from coordinator.schedules.csv_format import write_csv
from coordinator.texts import share
from coordinator.timing.lab import (
    LeftOut,
    Row,
    ScheduleComparison,
    Searched,
    compare,
    comparison_document,
    search_too,
    shortest_text,
)
from stages.errors import UserMistake

MOST_STAGES, MOST_MICRO_BATCHES = 10_000, 100_000
MOST_TIME = 1000.0
MOST_SEARCHED = 1024
"""Stages × micro-batches of the largest search: some seconds."""
_MOST_WORK = 2_000_000
"""Programs that take longer together are not performed; see [Note: large comparisons] in coordinator.timing.lab."""
_ROWS, _COLUMNS = 4, 150
_LANE = 16  # pixels
_MOST_BARS = 100
"""A lane with more actions is thinned."""
_FIRST_HUE, _LAST_HUE = 215, 35

lab_thread = OneAtATime("lab")
"""Everything here that takes long is computed in this thread."""


@dataclass(frozen=True, slots=True)
class LabQuestion:
    """The settings, named as in the address of the page and in /api/lab. `memory` 0: no limit."""

    stages: int = 8
    micro_batches: int = 32
    forward: float = 1.0
    input_gradient: float = 1.0
    weight_gradient: float = 1.0
    latency: float = 0.0
    memory: float = 0.0

    def problems(self) -> list[str]:
        """Return why nothing can be compared, a sentence for each reason; empty if it can."""
        found = []
        for name, value, most in (
            ("stages", self.stages, MOST_STAGES),
            ("micro_batches", self.micro_batches, MOST_MICRO_BATCHES),
        ):
            if not 1 <= value <= most:
                found.append(f"{name}: got {value}, must be 1 to {most:,}")
        for name in ("forward", "input_gradient", "weight_gradient"):
            if not 1e-3 <= getattr(self, name) <= MOST_TIME:
                found.append(f"{name}: got {getattr(self, name):g}, must be 0.001 to {MOST_TIME:g}")
        if not 0 <= self.latency <= MOST_TIME:
            found.append(f"latency: got {self.latency:g}, must be 0 to {MOST_TIME:g}")
        if not 0 <= self.memory <= 1e9:
            found.append(f"memory: got {self.memory:g}, must be the most micro-batches that a worker can keep, or 0")
        return found

    def comparison(self) -> ScheduleComparison:
        """Return what is compared. Raises UserMistake with the `problems`."""
        if problems := self.problems():
            raise UserMistake("\n".join(problems))
        return ScheduleComparison(
            n_workers=self.stages,
            n_micro_batches=self.micro_batches,
            times=(self.forward, self.input_gradient, self.weight_gradient),
            latency=self.latency,
            memory=self.memory or None,
        )

    def path(self) -> str:
        """Return the address of the page with these settings; a setting with its default is left out."""
        usual = asdict(LabQuestion())
        chosen = {name: f"{value:g}" for name, value in asdict(self).items() if value != usual[name]}
        return f"/lab?{urlencode(chosen)}" if chosen else "/lab"


@dataclass(frozen=True, slots=True, eq=False)
class LabAnswer:
    """The rows, and their pictures on one time axis."""

    question: ScheduleComparison
    rows: Sequence[Row | LeftOut]
    panels: Sequence[Panel]
    searched: Searched | None = None

    @property
    def document(self) -> dict[str, Any]:
        """What `pipetrain lab --json` prints."""
        return comparison_document(self.question, self.rows, self.searched)

    @property
    def shortest(self) -> str:
        """A line about the shortest step."""
        text = shortest_text(self.question, self.rows)
        return f"The {text}." if text else ""

    def csv(self) -> bytes:
        """Return the searched schedule as a .csv file."""
        assert self.searched is not None, "only a searched schedule is written"
        return write_csv(self.searched.row.timed.table.program()).encode()


@lru_cache(maxsize=16)
def perform_lab(question: LabQuestion) -> LabAnswer:
    """Return the comparison. Raises UserMistake, also if no schedule keeps as little as `memory`."""
    asked = question.comparison()
    rows = compare(asked, most_work=_MOST_WORK)
    return LabAnswer(asked, rows, pictures(rows))


@lru_cache(maxsize=16)
def search_lab(question: LabQuestion) -> LabAnswer:
    """Return the comparison with a searched schedule as its last row. Raises UserMistake if none fits, or if the step
    is too large to search."""
    asked = question.comparison()
    searched = search_too(asked, MOST_SEARCHED)
    rows = [*compare(asked, must_fit=False, most_work=_MOST_WORK), searched.row]
    return LabAnswer(asked, rows, pictures(rows), searched)


def pictures(rows: Sequence[Row | LeftOut]) -> list[Panel]:
    """Return a panel for each schedule, on one time axis, with at most four workers each."""
    built = [row for row in rows if isinstance(row, Row)]
    longest = max((row.step for row in built), default=0.0)
    return [_panel(row, longest) for row in built]


def _panel(row: Row, longest: float) -> Panel:
    timed = row.timed
    workers = drawn_workers(timed.table.n_workers, _ROWS)
    scale = row.step / timed.makespan  # of a smaller program that stands for the step
    bars: list[list[float]] = []
    for place, worker in enumerate(workers):
        whole = row.origin == "program" and len(timed.starts[worker]) <= _MOST_BARS
        lane = _each(timed, worker) if whole else _thinned(timed, worker, longest / scale)
        gaps = [(start * scale, end * scale) for start, end, *_ in lane]
        bubbles = bubbles_between(gaps, place, row.step, longest / 250)
        bars = [*([*bubble, 0, worker] for bubble in bubbles), *bars]
        bars += [[place, start * scale, end * scale, *rest, 0, worker] for start, end, *rest in lane]
    size = f"{timed.table.n_workers} workers × {timed.table.n_micro_batches} micro-batches"
    drawn = "" if row.origin == "program" else f", drawn with {size}"
    return Panel(
        title=f"{row.schedule}: {row.step_text()}, bubble {share(row.bubble)}{drawn}",
        bars=bars,
        n_workers=len(workers),
        end=row.step,
        idle=row.bubble,
        since=0.0,
        until=longest,
        workers=tuple(workers),
        lane=_LANE,
    )


_Bar = tuple[float, ...]
"""Start, end, kind, stage, micro-batch, hue, with stage."""


def _each(timed: Timed, worker: int) -> list[_Bar]:
    """Return a bar for each action."""
    lane, m = timed.table.lanes[worker], timed.table.n_micro_batches
    columns = timed.starts[worker], timed.ends[worker], kinds_of(lane, m), stages_of(lane, m), lane % m
    several = float(timed.table.n_workers < timed.table.n_stages)
    found = zip(*(column.tolist() for column in columns), strict=True)
    return [(start, end, kind, stage, j, _hue(j, m), several) for start, end, kind, stage, j in found]


def _thinned(timed: Timed, worker: int, until: float) -> list[_Bar]:
    """Return what the worker does at one moment of each column; neighbours of one kind are one bar. The moments are
    drawn at random, so that each kind and idle time have their shares; always the same ones."""
    edges: Times = np.linspace(0.0, until, _COLUMNS + 1)
    moments = edges[:-1] + np.random.default_rng(0).random(_COLUMNS) * np.diff(edges)
    lane, m = timed.table.lanes[worker], timed.table.n_micro_batches
    at = np.searchsorted(timed.starts[worker], moments, side="right") - 1
    busy = (at >= 0) & (timed.ends[worker][at] > moments)
    kinds = np.where(busy, kinds_of(lane, m)[at], -1).tolist()
    found: list[list[float]] = []
    for column, kind in enumerate(kinds):
        if kind < 0:
            continue
        if column and kinds[column - 1] == kind:
            found[-1][1] = float(edges[column + 1])
        else:
            hue = _hue(int(lane[at[column]] % m), m)
            found.append([float(edges[column]), float(edges[column + 1]), kind, -1, -1, hue, 0])
    return [tuple(bar) for bar in found]


def _hue(micro_batch: int, m: int) -> int:
    return round(_FIRST_HUE + (_LAST_HUE - _FIRST_HUE) * micro_batch / max(1, m - 1))
