"""Shows the learning rate over the steps of a job: as a picture of text, and as a list of notable steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from coordinator.texts import number

_EIGHTHS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Notable:
    """A notable step: its learning rate, and why it is notable."""

    step: int
    rate: float
    what: str


_MOST_LOOKS = 50_000
"""If a job has more steps, only this many are evaluated, evenly spaced."""
_MOST_TURNS = 6


def notable_steps(rate: Callable[[int], float], steps: int, warmup_steps: int) -> list[Notable]:
    """Return the first step, the end of the warm-up, the largest rate, the first few steps at which a constant rate
    begins to change or a changing rate becomes constant, the middle and the last step."""
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
    """Return the steps at which a constant rate begins to change or a changing rate becomes constant."""
    numbers, values = list(rates), list(rates.values())
    stays = [a == b for a, b in pairwise(values)]
    turns = [k for k in range(1, len(stays)) if stays[k] != stays[k - 1]]
    return [(numbers[k], "constant from here" if stays[k] else "changes after this step") for k in turns[:_MOST_TURNS]]


def rate_picture(rate: Callable[[int], float], steps: int, *, width: int = 72, height: int = 10) -> list[str]:
    """Return the lines of a picture: columns of blocks over the steps, from 0 to the largest rate. A column shows the
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
    """Return the largest rate of at most 64 of these steps, evenly spaced."""
    looks = min(64, last - first + 1)
    return max(rate(first + k * (last - first) // max(1, looks - 1)) for k in range(looks))
