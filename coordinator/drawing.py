"""Programs drawn as text: time to the right, a line a worker.

    worker 0  0F0 0F1  ·   ·  0B0────    the number is the stage, the letter what it does, then the micro-batch
"""

from __future__ import annotations

from collections.abc import Mapping

from stages.actions import Action, Kind, Program



def draw(program: Program, mark: Mapping[Action, str] | None = None) -> str:
    """Each lane's actions in order, without times: for programs that may not be performable. `mark` notes places."""
    mark = mark or {}
    width = max((len(str(action)) for lane in program.lanes for action in lane), default=1) + 1
    lines = []
    for worker, lane in enumerate(program.lanes):
        cells, notes = [], []
        for action in lane:
            text = f"[{action}]" if action in mark else f"{action}"
            cells.append(text.ljust(width))
            if action in mark:
                notes.append(f"<-- {action} {mark[action]}")
        lines.append("  ".join(filter(None, [f"worker {worker}  {' '.join(cells).rstrip()}", *notes])))
    return "\n".join(lines)


def draw_timed(
    spans: tuple[tuple[tuple[Action, float, float], ...], ...], *, with_stage: bool, tick: float = 1.0
) -> str:
    """A dry run on its clock: a column a tick, dots where a worker idles, a B two columns wide."""
    end = max((span[-1][2] for span in spans if span), default=0.0)
    columns = max(1, round(end / tick))
    label = {action: f"{action}" if with_stage else f"{action.kind}{action.micro_batch}" for lane in spans for action, _, _ in lane}
    width = max((len(text) for text in label.values()), default=1) + 1
    lines = ["time      " + "".join(str(t).ljust(width) if t % 5 == 0 else " " * width for t in range(columns)).rstrip()]
    for worker, lane in enumerate(spans):
        cells = ["·".ljust(width)] * columns
        for action, start, stop in lane:
            first, last = round(start / tick), round(stop / tick)
            cells[first] = label[action].ljust(width)
            for t in range(first + 1, last):
                cells[t] = "".ljust(width, "─") if t < last - 1 else "".ljust(width - 1, "─") + " "
            if last - first > 1:
                cells[first] = label[action].ljust(width, "─")
        lines.append(f"worker {worker:<2} " + "".join(cells).rstrip())
    return "\n".join(lines)


LEGEND = {
    Kind.FORWARD: "F forward",
    Kind.BACKWARD: "B backward",
    Kind.BACKWARD_INPUT: "I input gradient",
    Kind.BACKWARD_WEIGHT: "W weight gradient",
}


def legend(program: Program) -> str:
    """The letters that the program uses."""
    used = {action.kind for lane in program.lanes for action in lane}
    return "   ".join([text for kind, text in LEGEND.items() if kind in used] + ["· idle"])
