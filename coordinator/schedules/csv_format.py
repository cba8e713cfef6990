"""Schedules as CSV, in the compute-only format of torch.distributed.pipelining: one line a rank.

    0F0,0F1,,0B0,0B1
    ,1F0,1B0,1F1,1B1

Empty cells are idle time; workers ignore them. A worker holds the stages of its line. `(0F3;3B1)OVERLAP_F_B`, torch's
overlapping pair, is read as its forward and then its backward, and written again as a pair. Torch also writes cells
that compute nothing (`0SEND_F1`, `1REDUCE_GRAD`, …; its `_dump_csv` does so by default): they are left out, because a
worker sends its results anyway.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from coordinator.job.regular_files import read_regular
from coordinator.program.replay import check, replay
from stages.actions import Action, Kind, Lane, Program
from stages.errors import InvalidSchedule

MAX_SCHEDULE_BYTES = 16 * 2**20
"""The limit of a schedule file; a file of 100 workers and 1,000 micro-batches has about 2 MiB."""
_OVERLAP = re.compile(r"\(([^()]*)\)OVERLAP_F_B")
_NOT_COMPUTE = re.compile(r"[0-9]+(SEND_F|RECV_F|SEND_B|RECV_B|UNSHARD|RESHARD|REDUCE_GRAD)[0-9]*")


def read_csv(text: str, name: str = "schedule.csv") -> Program:
    """Return the program that `text` describes, after checking it. Raises InvalidSchedule naming line and cell, or the
    broken law."""
    lanes: list[Lane] = []
    pairs: list[Action] = []
    empty: int | None = None
    try:
        for number, cells in enumerate(csv.reader(io.StringIO(text, newline="")), start=1):
            places = [(f"{name}, line {number}, cell {i}", cell.strip()) for i, cell in enumerate(cells, start=1)]
            found = [_cell(cell, place) for place, cell in places if cell]
            pairs += [cell[0] for cell in found if "".join(action.kind for action in cell) == "FB"]
            lane = tuple(action for cell in found for action in cell)
            if lane and empty is not None:
                raise InvalidSchedule(
                    f"{name}, line {empty}: has no action; each line is a worker with a stage or more"
                )
            if lane:
                lanes.append(lane)
            else:
                empty = empty or number
    except csv.Error as error:
        raise InvalidSchedule(f"{name}: is not CSV: {error}") from None
    actions = [action for lane in lanes for action in lane]
    if not actions:
        raise InvalidSchedule(f"{name}: has no action; a line looks like 0F0,0F1,,0B0,0B1")
    n_stages, n_micro_batches = 1 + max(a.stage for a in actions), 1 + max(a.micro_batch for a in actions)
    program = Program(name, n_stages, n_micro_batches, tuple(lanes), frozenset(pairs))
    check(program)
    return program


def load_csv(path: Path) -> Program:
    """Like `read_csv`, for a file. Raises InvalidSchedule if it cannot be read."""
    try:
        text = read_regular(path, MAX_SCHEDULE_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise InvalidSchedule(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidSchedule(f"{path}: is not text, so it is not a schedule") from None
    return read_csv(text, name=path.name)


def write_csv(program: Program) -> str:
    """Return the program as CSV with idle time as empty cells, a column a unit of time (F = I = W = B = 1)."""
    performed = replay(program, dict.fromkeys(Kind, 1.0))
    lines = []
    for lane in performed.spans:
        cells = [""] * round(performed.makespan)
        first: Action | None = None
        for action, start, _ in lane:
            if action in program.pairs:
                first, at = action, round(start)
            elif first is not None:
                cells[at], first = f"({first};{action})OVERLAP_F_B", None
            else:
                cells[round(start)] = str(action)
        lines.append(",".join(cells))
    return "\n".join(lines) + "\n"


def _cell(cell: str, place: str) -> Lane:
    shown = repr(cell if len(cell) <= 40 else cell[:40] + "…")
    if _NOT_COMPUTE.fullmatch(cell):
        return ()
    pair = _OVERLAP.fullmatch(cell)
    try:
        actions = [Action.parse(part) for part in (pair[1].split(";") if pair else [cell])]
    except ValueError:
        raise InvalidSchedule(
            f"{place}: {shown} is not an action; one looks like 2F0, 2B0, 2I0, 2W0 or (0F3;3B1)OVERLAP_F_B"
        ) from None
    return tuple(sorted(actions, key=lambda action: action.kind is not Kind.FORWARD))
