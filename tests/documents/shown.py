"""What a document shows: its commands with the output below them, and its Python."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"[-−]?\d[\d,.]*(?:e[-+]?\d+)?")
_UNITS = {" s": re.compile(r"\b0 ?(?:ms|s|min|h)\b"), " B": re.compile(r"\b0 (?:[KMG]i)?B\b")}  # a few or many of them
_LINES = re.compile(r"[\u2500-\u257f]+")  # of tables and progress bars
_BLOCKS = re.compile(r"[\u2580-\u259f]+")  # of bars and small charts
_BETWEEN = re.compile(r"epoch 0 · step 0/0 · (?!.*validation)")  # a line every five seconds, if an epoch is longer
_SLOW = re.compile(r"slow: ")  # why, which depends on the machine
_PREDICTED = " (predicted 0%)"  # not known yet at the first evaluation of a slow machine
ANYTHING = "…"
"""A line that stands for any number of lines."""


@dataclass(frozen=True, slots=True)
class Command:
    """A line that begins with `$`, and the lines below it up to the next command or the end of the block."""

    line: int
    text: str
    output: str


@dataclass(frozen=True, slots=True)
class Code:
    """A block of Python."""

    line: int
    text: str


def shown(document: str) -> Iterator[Command | Code]:
    """The commands and the Python of a document in Markdown, in order."""
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
    """Lines without what differs from run to run: figures, bars, the width of tables, how often progress is told."""
    text = _NUMBER.sub("0", text)
    for unit, pattern in _UNITS.items():
        text = pattern.sub(f"0{unit}", text)
    text = _BLOCKS.sub("█", _LINES.sub("─", text))
    lines = (" ".join(line.split()).replace(_PREDICTED, "") for line in text.strip().splitlines())
    return [line for line in lines if not (_BETWEEN.match(line) or _SLOW.match(line))]


def agrees(expected: str, actual: str) -> bool:
    """Whether an output is what a document shows, but for figures, and for lines that `…` leaves out."""
    lines = ("(?:.*\n)*" if line == ANYTHING else re.escape(line) + "\n" for line in masked(expected))
    return re.fullmatch("".join(lines), "".join(f"{line}\n" for line in masked(actual))) is not None
