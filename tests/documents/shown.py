"""Find the commands of a document with the output below them, and its Python code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"[-−]?\d[\d,.]*(?:e[-+]?\d+)?")
_UNITS = {
    " s": re.compile(r"\b0 ?(?:µs|ms|s|min|h)\b"),
    " B": re.compile(r"\b0 (?:[KMG]i)?B\b"),
}  # of small and large amounts
_LINES = re.compile(r"[\u2500-\u257f]+")  # of tables and progress bars
_BLOCKS = re.compile(r"[\u2580-\u259f]+")  # of bars and small charts
_BETWEEN = re.compile(
    r"epoch 0 · step 0/0 · (?!.*validation)"
)  # a progress line, printed every five seconds if an epoch takes longer
_SLOW = re.compile(r"slow: ")  # why a run is slow depends on the machine
_PREDICTED = " (predicted 0%)"  # not known yet at the first evaluation of a slow machine
ANYTHING = "…"
"""A line that stands for any number of lines."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command, after `$`, and the output below it up to the next command or the end of the block."""

    line: int
    text: str
    output: str


@dataclass(frozen=True, slots=True)
class Code:
    """A block of Python code."""

    line: int
    text: str


def shown(document: str) -> Iterator[Command | Code]:
    """Yield the commands and the Python code of a document in Markdown, in order."""
    for fence in _FENCE.finditer(document):
        line = document.count("\n", 0, fence.start()) + 2
        if fence[1] == "python":
            yield Code(line, fence[2])
        else:
            yield from _commands(fence[2].splitlines(), line)


def _commands(lines: list[str], first: int) -> Iterator[Command]:
    starts = [i for i, line in enumerate(lines) if line.startswith("$ ")]
    for start, end in pairwise([*starts, len(lines)]):
        yield Command(first + start, lines[start].removeprefix("$ "), "\n".join(lines[start + 1 : end]))


def masked(text: str) -> list[str]:
    """Return the lines without the parts that differ from run to run: figures, bars, widths of tables, progress
    lines."""
    text = _NUMBER.sub("0", text)
    for unit, pattern in _UNITS.items():
        text = pattern.sub(f"0{unit}", text)
    text = _BLOCKS.sub("█", _LINES.sub("─", text))
    lines = (" ".join(line.split()).replace(_PREDICTED, "") for line in text.strip().splitlines())
    return [line for line in lines if not (_BETWEEN.match(line) or _SLOW.match(line))]


def agrees(expected: str, actual: str) -> bool:
    """Whether an output is the one that a document shows, except for figures, and for lines in place of `…`."""
    lines = ("(?:.*\n)*" if line == ANYTHING else re.escape(line) + "\n" for line in masked(expected))
    return re.fullmatch("".join(lines), "".join(f"{line}\n" for line in masked(actual))) is not None
