"""The learning rate over the steps of a job: as a picture of text, and at the steps where something changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from coordinator.texts import number

_EIGHTHS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Notable:
    """A step worth telling: its learning rate, and why."""

    step: int
    rate: float
    what: str


_MOST_LOOKS = 50_000
"""Of a job with more steps, so many of them are looked at, evenly apart."""
_MOST_TURNS = 6


def notable_steps(rate: Callable[[int], float], steps: int, warmup_steps: int) -> list[Notable]:
    """The first step, the end of the warm-up, the largest rate, where a rate that stays begins to change or one that
    changes begins to stay (the first few), the middle and the last step."""
    looks = min(steps, _MOST_LOOKS)
    seen = {1 + k * (steps - 1) // max(1, looks - 1): 0.0 for k in range(looks)}
    seen = {step: rate(step) for step in seen}
    found = {1: "first step"}
    if 1 < warmup_steps <= steps:
        found[warmup_steps] = "end of the warm-up"
    if max(seen.values()) > min(seen.values()):
        found.setdefault(max(seen, key=seen.__getitem__), "largest")
        for step, what in _turns(seen):
            if step != warmup_steps + 1:
                found.setdefault(step, what)
    found.setdefault((steps + 1) // 2, "middle")
    found.setdefault(steps, "last step")
    return [Notable(step, rate(step), found[step]) for step in sorted(found)]


def _turns(rates: Mapping[int, float]) -> list[tuple[int, str]]:
    """Where a rate that stayed changes, and where one that changed stays."""
    numbers, values = list(rates), list(rates.values())
    stays = [a == b for a, b in pairwise(values)]
    turns = [k for k in range(1, len(stays)) if stays[k] != stays[k - 1]]
    return [(numbers[k], "stays from here on" if stays[k] else "changes behind this step") for k in turns[:_MOST_TURNS]]


def rate_picture(rate: Callable[[int], float], steps: int, *, width: int = 72, height: int = 10) -> list[str]:
    """Lines: columns of blocks over the steps, from 0 to the largest rate; a column is as high as the
    largest rate of its steps."""
    width = max(1, min(width, steps))
    edges = [i * steps // width for i in range(width + 1)]
    columns = [_largest(rate, a + 1, b) for a, b in pairwise(edges)]
    largest = max(columns)
    filled = [round(8 * height * value / largest) if largest else 0 for value in columns]
    labels = {height - 1: number(largest), 0: number(0.0)}
    margin = max(map(len, [*labels.values(), "step"]))
    lines = [
        f"{labels.get(row, ''):>{margin}} ┤" + "".join(_EIGHTHS[max(0, min(8, n - 8 * row))] for n in filled)
        for row in reversed(range(height))
    ]
    last = f"{steps:,}" if steps > 1 else ""
    axis = f"1{last:>{max(len(last) + 1, width - 1)}}"
    return [
        *(line.rstrip() for line in lines),
        f"{'':>{margin}} └{'─' * width}",
        f"{'step':>{margin}}  {axis}".rstrip(),
    ]


def _largest(rate: Callable[[int], float], first: int, last: int) -> float:
    """Of at most 64 of these steps, evenly apart."""
    looks = min(64, last - first + 1)
    return max(rate(first + k * (last - first) // max(1, looks - 1)) for k in range(looks))
