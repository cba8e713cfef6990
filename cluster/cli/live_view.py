"""A run's facts as lines of a terminal. If a line would be too long, it omits its least important facts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.text import Text

from cluster.cli.live_facts import LiveRun, LiveWorker
from coordinator.texts import per_second, share, size, step_time

_SPARK = "▁▂▃▄▅▆▇█"
_KINDS = (("compute", "█", "green"), ("wait", "░", "red"), ("send", "▒", "yellow"), ("other", "·", "dim"))
_BETWEEN = "   "
_MOST_WORKERS = 16
_LEAST_SPARK, _MOST_SPARK, _MOST_BAR = 6, 30, 40


@dataclass(frozen=True, slots=True)
class _Part:
    """A fact of a line. If the line is too long, the fact of the largest `rank` is omitted first."""

    text: Text
    rank: int


def live_view(facts: LiveRun, *, width: int, height: int | None = None) -> RenderableType:
    """Return the facts as lines of at most `width` columns. If `height` is given, at most that many lines: the view
    then shows fewer workers."""
    lines = [_progress(facts, width), *filter(None, (_losses(facts, width), _speed(facts, width)))]
    if facts.workers:
        room = _MOST_WORKERS if height is None else min(_MOST_WORKERS, height - len(lines) - 2)
        lines += _workers(facts, width, room)
    return Group(*lines)


def spark_line(values: Sequence[float], columns: int) -> str:
    """Draw the values in `columns` characters from the lowest to the highest; on a logarithmic scale if all are
    positive."""
    if not values or columns < 1:
        return ""
    shown = [_mean(values[a:b]) for a, b in _cuts(len(values), min(columns, len(values)))]
    if min(shown) > 0:
        shown = [math.log(value) for value in shown]
    low, high = min(shown), max(shown)
    scale = (len(_SPARK) - 1) / (high - low) if high > low else 0.0
    return "".join(_SPARK[round((value - low) * scale)] for value in shown)


def time_bar(shares: Sequence[float], columns: int) -> Text:
    """Draw shares that sum to 1 as a bar of exactly `columns` characters, with a sign and a colour for each kind."""
    ends = [round(columns * sum(shares[: place + 1])) for place in range(len(shares))]
    ends[-1] = columns
    text, begin = Text(), 0
    for (_, sign, style), end in zip(_KINDS, ends, strict=True):
        text.append(sign * (end - begin), style=style)
        begin = max(begin, end)
    return text


# lines ---------------------------------------------------------------------------------------------------------------


def _progress(facts: LiveRun, width: int) -> Text:
    place = f"{facts.step}" if facts.steps_total is None else f"{facts.step}/{facts.steps_total}"
    left = "" if facts.seconds_left is None else f"{_clock(facts.seconds_left)} left"
    parts = [
        _Part(Text(facts.phase, style="bold"), 1),
        _Part(Text(), 3),
        _Part(Text(place), 0),
        _Part(Text(left), 2),
    ]
    free = width - sum(cell_len(part.text.plain) + len(_BETWEEN) for part in parts if part.text.plain)
    if facts.steps_total and free >= 8:
        parts[1] = _Part(_bar(facts.step / facts.steps_total, min(free, _MOST_BAR)), 3)
    return _fit(parts, width)


def _losses(facts: LiveRun, width: int) -> Text | None:
    """The losses in the most detailed form that fits; None without a loss."""
    if facts.loss is None:
        return None
    loss, validation = f"loss {facts.loss:.4g}", ""
    if facts.validation_loss is not None:
        validation = f"validation {facts.validation_loss:.4g}"
        if facts.validation_perplexity is not None:
            validation += f", perplexity {facts.validation_perplexity:.4g}"
    full_loss, full_validation = (
        f"{text}, accuracy {share(accuracy, 2, '')}" if text and accuracy is not None else text
        for text, accuracy in ((f"mean {loss}", facts.accuracy), (validation, facts.validation_accuracy))
    )
    for left, right, spark in (
        (full_loss, full_validation, True),
        (f"mean {loss}", full_validation, True),
        (loss, full_validation, True),
        (loss, full_validation, False),
        (loss, validation, False),
        (loss, "", False),
    ):
        free = width - sum(cell_len(text) + len(_BETWEEN) for text in (left, right) if text)
        course = spark_line(facts.losses, min(_MOST_SPARK, free)) if spark and len(facts.losses) > 1 else ""
        if free >= (_LEAST_SPARK if course else -len(_BETWEEN)):
            break
    return _line([Text(left), Text(course, style="cyan"), Text(right)])


def _speed(facts: LiveRun, width: int) -> Text | None:
    speed = "" if facts.samples_per_second is None else f"{per_second(facts.samples_per_second)} samples/s"
    bubble = "" if facts.bubble is None else f"bubble {facts.bubble:.0%}"
    predicted = "" if facts.bubble_predicted is None else f"predicted {facts.bubble_predicted:.0%}"
    step = ""
    if facts.step_mean is not None and facts.step_median is not None:
        step = f"step {step_time(facts.step_mean, facts.step_median)}"
    ranked = ((speed, 0), (step, 4), (bubble, 1), (predicted, 2), (_memory(facts), 3))
    parts = [_Part(Text(text), rank) for text, rank in ranked]
    line = _fit(parts, width)
    return line if line.plain else None


def _memory(facts: LiveRun) -> str:
    """The peak memory of the worker that is nearest to its limit; without limits, of the largest worker."""
    known = [worker for worker in facts.workers if worker.peak_bytes is not None]
    if not known:
        return ""
    fullest = max(known, key=lambda worker: (worker.peak_bytes or 0) / (worker.limit_bytes or 1))
    of = "" if fullest.limit_bytes is None else f" of {size(fullest.limit_bytes)}"
    whose = "" if facts.one_process or len(known) == 1 else f", worker {fullest.worker}"
    return f"peak memory {size(fullest.peak_bytes or 0)}{of}{whose}"


def _fit(parts: Sequence[_Part], width: int) -> Text:
    """Join the parts that have a text, without the least important ones if they do not all fit."""
    shown = [part for part in parts if part.text.plain]
    while shown and sum(cell_len(p.text.plain) for p in shown) + len(_BETWEEN) * (len(shown) - 1) > width:
        shown.remove(max(shown, key=lambda part: part.rank))
    return _line([part.text for part in shown])


def _line(texts: Sequence[Text]) -> Text:
    line = Text(_BETWEEN).join([text for text in texts if text.plain])
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _bar(done: float, columns: int) -> Text:
    full = round(columns * min(1.0, max(0.0, done)))
    return Text("━" * full, style="cyan").append("─" * (columns - full), "dim")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


# workers -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the workers' table. If the table is too wide, the column of the largest `rank` is omitted first."""

    heading: str
    text: Callable[[LiveWorker], str]
    rank: int
    right: bool = True


def _workers(facts: LiveRun, width: int, room: int) -> list[Text]:
    """Return a heading and an aligned line for each worker. If not all fit, the last line says how many are missing."""
    workers = facts.workers if len(facts.workers) <= room else facts.workers[: max(0, room - 1)]
    if not workers:
        return [_plain(f"{len(facts.workers)} workers")]
    columns = [column for column in _columns(facts) if any(column.text(worker) for worker in facts.workers)]
    texts = {column.heading: [column.text(worker) for worker in workers] for column in columns}
    widths = {name: max(map(cell_len, (name, *cells))) for name, cells in texts.items()}
    timed = any(worker.shares for worker in workers)
    least = 12 if timed else 0

    def needed() -> int:
        return sum(widths[column.heading] + 2 for column in columns) + least - (0 if least else 2)

    while len(columns) > 1 and needed() > width:
        columns.remove(max(columns, key=lambda column: column.rank))
    bar = min(_MOST_BAR, least + width - needed()) if timed and needed() <= width else 0
    lines = [_row([column.heading for column in columns], columns, widths, Text(_legend(bar)) if bar else None)]
    lines[0].stylize("dim")
    for place, worker in enumerate(workers):
        cells = [texts[column.heading][place] for column in columns]
        lines.append(_row(cells, columns, widths, time_bar(worker.shares, bar) if bar and worker.shares else None))
    if len(workers) < len(facts.workers):
        lines.append(_plain(f"and {len(facts.workers) - len(workers)} more workers"))
    return lines


def _row(cells: Sequence[str], columns: Sequence[_Column], widths: dict[str, int], bar: Text | None) -> Text:
    padded = []
    for cell, column in zip(cells, columns, strict=True):
        gap = " " * (widths[column.heading] - cell_len(cell))
        padded.append(Text(gap + cell if column.right else cell + gap))
    line = Text("  ").join([*padded, *([bar] if bar is not None else [])])
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _legend(columns: int) -> str:
    """Explain the signs of `time_bar`, shorter if there is little room."""
    signs = [f"{sign} {name}" for name, sign, _ in _KINDS]
    for text in ("  ".join(signs), " ".join(signs), " ".join(signs[:2])):
        if len(text) <= columns:
            return text
    return "time"


def _plain(text: str) -> Text:
    return Text(text, style="dim", no_wrap=True, overflow="ellipsis")


def _columns(facts: LiveRun) -> list[_Column]:
    several_hosts = len({worker.host for worker in facts.workers}) > 1
    columns = [
        _Column("worker", lambda worker: f"{worker.worker}", 0),
        _Column("stages", lambda worker: _numbers(worker.stages), 2, right=False),
        _Column("bubble", lambda worker: _percent(worker.bubble), 1),
        _Column("predicted", lambda worker: _percent(worker.bubble_predicted), 9),
    ]
    columns += [
        _Column(name, lambda worker, place=place: _percent(worker.shares and worker.shares[place]), 5 + place)  # type: ignore[misc]
        for place, (name, _, _) in enumerate(_KINDS)
    ]
    if not facts.one_process:
        columns.append(_Column("peak memory", _memory_of, 3))
    if several_hosts:
        columns.append(_Column("host", lambda worker: worker.host, 4, right=False))
    return columns


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _memory_of(worker: LiveWorker) -> str:
    if worker.peak_bytes is None:
        return ""
    return size(worker.peak_bytes) + ("" if worker.limit_bytes is None else f" of {size(worker.limit_bytes)}")


def _numbers(numbers: Sequence[int]) -> str:
    """Return numbers as text: `0,4`; neighbours as `0–3`; more than four others as `0,4,…,28`."""
    if len(numbers) > 2 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}–{numbers[-1]}"
    return ",".join(map(str, numbers)) if len(numbers) <= 4 else f"{numbers[0]},{numbers[1]},…,{numbers[-1]}"


def _cuts(length: int, parts: int) -> list[tuple[int, int]]:
    return [(place * length // parts, (place + 1) * length // parts) for place in range(parts)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
