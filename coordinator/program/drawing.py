"""Programs drawn as text, a line a worker.

`draw` shows the lanes in order, with places marked, also for programs that cannot be performed:

    worker 0  0F0 0F1 [0B0] 0B1  <-- 0B0 stuck, waits for 1B0

`draw_timed` shows a dry run on its clock, a column a tick, dots for idle time:

    time      0    5
    worker 0  F0F1··B0──
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from stages.actions import Action, Kind, Program

Spans = Sequence[Sequence[tuple[Action, float, float]]]
"""For each worker, its actions with start and end."""

LEGEND = {
    Kind.FORWARD: "F forward",
    Kind.BACKWARD: "B backward",
    Kind.BACKWARD_INPUT: "I input gradient",
    Kind.BACKWARD_WEIGHT: "W weight gradient",
}
_COLORS = {  # ANSI: black on blue, green, green, yellow
    Kind.FORWARD: "30;48;5;117",
    Kind.BACKWARD: "30;48;5;150",
    Kind.BACKWARD_INPUT: "30;48;5;150",
    Kind.BACKWARD_WEIGHT: "30;48;5;222",
}
_AROUND = 5  # actions shown on either side of a marked one
_MOST_TICKS = 2000

Cell = tuple[str, Kind | None]
"""A cell's text and its kind; None for idle time."""


def draw(
    program: Program,
    mark: Mapping[Action, str] | None = None,
    notes: Mapping[int, str] | None = None,
    gaps: Mapping[int, tuple[int, Action]] | None = None,
) -> str:
    """Return a drawing of each lane's actions in order, without times. Long lanes are shown only around their marks.

    `mark` puts actions in brackets and adds a note if its text is not empty; `notes` adds a note to a worker's lane;
    `gaps[w]` is a place in worker w's lane and the action that is missing there: `[0B5?]`.
    """
    mark, notes, gaps = mark or {}, notes or {}, gaps or {}
    indent = len(f"worker {max(0, program.n_workers - 1)}")
    lines = []
    for worker, lane in enumerate(program.lanes):
        words = [(f"[{action}]" if action in mark else str(action), action in mark) for action in lane]
        if worker in gaps:
            place, missing = gaps[worker]
            words.insert(place, (f"[{missing}?]", True))
        marks = [f"<-- {action} {mark[action]}" for action in dict.fromkeys(lane) if mark.get(action)]
        if worker in notes:
            marks.append(f"<-- {notes[worker]}")
        lines.append("  ".join([f"worker {worker}".ljust(indent), " ".join(_excerpt(words)), *marks]).rstrip())
    return "\n".join(lines)


def _excerpt(words: Sequence[tuple[str, bool]]) -> list[str]:
    """Return the marked words and those around them."""
    most = 2 * _AROUND + 1
    marked = [place for place, (_, is_marked) in enumerate(words) if is_marked]
    shown = {place for at in marked for place in range(at - _AROUND, at + _AROUND + 1)} or set(range(most))
    short: list[str] = []
    for place, (word, _) in enumerate(words):
        if place in shown or len(words) <= most:
            short.append(word)
        elif not short or short[-1] != "…":
            short.append("…")
    return short


def draw_timed(spans: Spans, *, with_stage: bool, tick: float = 1.0, columns: int = 100, color: bool = False) -> str:
    """Return a drawing of a dry run on its clock. `tick` is the time of one column, in the unit of the spans.

    Cells without stages lose their gaps if they then fit into `columns` characters; a drawing that still does not fit
    continues below. `color` adds ANSI colours. Labels have the stage only if `with_stage`: a worker with one stage
    needs none.
    """
    end = max((lane[-1][2] for lane in spans if lane), default=0.0)
    ticks = max(1, min(_MOST_TICKS, round(end / tick)))
    tick = max(tick, end / ticks)
    longest = max((len(_label(action, with_stage)) for lane in spans for action, _, _ in lane), default=1)
    heads = [f"worker {worker}" for worker in range(len(spans))]
    indent = max(map(len, heads), default=0) + 2
    closes_up = not with_stage and indent + ticks * longest <= columns < indent + ticks * (longest + 1)
    width = longest if closes_up else longest + 1
    rows = [_cells(lane, ticks, tick, width, width > longest, with_stage) for lane in spans]
    n_panels = -(-ticks // max(1, (columns - indent) // width))
    per_panel = -(-ticks // n_panels)
    panels = []
    for first in range(0, ticks, per_panel):
        last = min(first + per_panel, ticks)
        lines = ["time".ljust(indent) + _ruler(first, last, width)]
        for head, cells in zip(heads, rows, strict=True):
            lines.append(head.ljust(indent) + painted(cells[first:last], color))
        panels.append("\n".join(line.rstrip() for line in lines))
    return "\n\n".join(panels)


def _cells(
    lane: Sequence[tuple[Action, float, float]], ticks: int, tick: float, width: int, apart: bool, with_stage: bool
) -> list[Cell]:
    cells: list[Cell] = [("·".ljust(width), None)] * ticks
    for action, start, end in lane:
        if end <= start:
            continue  # a W before its group is complete
        first = min(round(start / tick), ticks - 1)
        last = max(first + 1, min(round(end / tick), ticks))
        length = (last - first) * width
        text = _label(action, with_stage)
        text = text + "─" * (length - len(text) - apart) + " " * apart if last - first > 1 else text.ljust(width)
        for t in range(first, last):
            cells[t] = (text[(t - first) * width : (t - first + 1) * width], action.kind)
    return cells


def _label(action: Action, with_stage: bool) -> str:
    return str(action) if with_stage else f"{action.kind}{action.micro_batch}"


def _ruler(first: int, last: int, width: int) -> str:
    text = ""
    for t in range(first, last):
        if t % 5 == 0 or t == first:
            text = text.ljust((t - first) * width)
            if len(text) == (t - first) * width:
                text += f"{t} "
    return text


def painted(cells: Sequence[Cell], color: bool) -> str:
    """Return the cells' text, with ANSI colours by kind if `color`."""
    if not color:
        return "".join(text for text, _ in cells)
    words = []
    for text, kind in cells:
        word = text.rstrip(" ")
        words.append(f"\033[{_COLORS[kind] if kind else '2'}m{word}\033[0m{text[len(word) :]}")
    return "".join(words)


def legend(used: Collection[Kind]) -> str:
    """Return the meaning of the letters of these kinds."""
    return "   ".join([text for kind, text in LEGEND.items() if kind in used] + ["· idle"])
