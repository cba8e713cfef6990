"""Schedules as CSV, in the compute-only format of torch.distributed.pipelining: one line a rank.

    0F0,0F1,,0B0,0B1
    ,1F0,1B0,1F1,1B1

Empty cells are idle time and mean nothing to a worker. Which worker holds which stages follows from the lines.
`(0F3;3B1)OVERLAP_F_B`, torch's pair that overlaps, is read as its two actions one after the other.
"""

from __future__ import annotations

import csv
import io
import re
from itertools import chain
from pathlib import Path

from coordinator.replay import Replay, check, replay
from stages.actions import Action, Program
from stages.errors import InvalidSchedule

_OVERLAP = re.compile(r"\((.*)\)OVERLAP_F_B")
_LONG_NAMES = {"BACKWARD_INPUT": "I", "BACKWARD_WEIGHT": "W", "FULL_BACKWARD": "B", "FORWARD": "F"}


def read_csv(text: str, name: str = "schedule.csv") -> Program:
    """The program that `text` describes, checked. Raises InvalidSchedule naming line and cell, or the broken law."""
    lanes = []
    for number, cells in enumerate(csv.reader(io.StringIO(text)), start=1):
        if cells:
            lanes.append(tuple(chain.from_iterable(_cell(cell, f"{name}, line {number}, cell {i}") for i, cell in enumerate(cells, 1))))
    actions = list(chain.from_iterable(lanes))
    if not actions:
        raise InvalidSchedule(f"{name}: has no action; a line looks like 0F0,0F1,,0B0,0B1")
    stages, micro_batches = 1 + max(a.stage for a in actions), 1 + max(a.micro_batch for a in actions)
    if stages * micro_batches > len(actions):
        raise InvalidSchedule(
            f"{name}: {len(actions)} actions cannot make {stages} stages × {micro_batches} micro-batches: there is a gap"
        )
    program = Program(name, stages, micro_batches, tuple(lanes))
    check(program)
    return program


def load_csv(path: Path) -> Program:
    """`read_csv` of a file. Raises InvalidSchedule for an unreadable one."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidSchedule(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidSchedule(f"{path}: is not text, so it is not a schedule") from None
    return read_csv(text, name=path.name)


def write_csv(program: Program) -> str:
    """The program with its idle time as empty cells, a column a unit of time (F = I = W = B = 1)."""
    performed: Replay = replay(program, lambda action: 1.0)
    columns = round(performed.makespan)
    lines = []
    for lane in performed.spans:
        cells = [""] * columns
        for action, start, _ in lane:
            cells[round(start)] = str(action)
        lines.append(",".join(cells))
    return "\n".join(lines) + "\n"


def _cell(cell: str, place: str) -> tuple[Action, ...]:
    text = cell.strip()
    if not text:
        return ()
    pair = _OVERLAP.fullmatch(text)
    try:
        return tuple(Action.parse(_shorten(part)) for part in (pair[1].split(";") if pair else [text]))
    except ValueError as error:
        raise InvalidSchedule(f"{place}: {error}") from None


def _shorten(text: str) -> str:
    for long, short in _LONG_NAMES.items():
        text = text.replace(long, short)
    return text
