"""The figures of an evaluation as tables of text: classes, confusion matrix, targets."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from cluster.cli.texts import one_line
from cluster.run.evaluation import folded
from coordinator.texts import number, share

_MOST_CLASSES = 20
_MOST_CONFUSED = 10
_WIDEST = 24


def figure_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the tables, each table after an empty line; none for text."""
    if "targets" in found:
        yield ""
        yield from aligned(
            ("target", "R²", "MAE", "RMSE"),
            [(t["name"], number(t["r2"]), number(t["mae"]), number(t["rmse"])) for t in found["targets"]],
        )
    if "classes" in found:
        yield ""
        yield from _class_lines(found)
    if "confusion" in found:
        names, confusion = folded(found, _MOST_CONFUSED)
        yield ""
        yield "rows of each class (left) by the class that was predicted (above):"
        yield from aligned(("", *names), [(name, *map(str, row)) for name, row in zip(names, confusion, strict=True)])


def _class_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The classes; of many, those with the smallest F1."""
    classes, more = found["classes"], len(found["classes"]) - _MOST_CLASSES
    if more > 0:
        worst = sorted(range(len(classes)), key=lambda k: (classes[k]["f1"] is None, classes[k]["f1"] or 0.0))
        classes = [classes[k] for k in sorted(worst[:_MOST_CLASSES])]
    yield from aligned(
        ("class", "precision", "recall", "F1", "rows"),
        [
            *((one["name"], *_shares(one), f"{one['support']:,}") for one in classes),
            ("mean", *_shares(found["macro"]), f"{sum(one['support'] for one in found['classes']):,}"),
        ],
    )
    if more > 0:
        yield f"and {more:,} more classes with a higher F1; --json has all"


def _shares(one: Mapping[str, float | None]) -> tuple[str, str, str]:
    return share(one["precision"]), share(one["recall"]), share(one["f1"])


def aligned(
    heading: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[int] = (0,), widest: int = _WIDEST
) -> Iterator[str]:
    """Yield aligned lines: the columns `left`, which are texts, to the left, figures to the right. All but the last
    have at most `widest` characters."""
    table = [
        [_short(cell, widest) if column + 1 < len(row) else one_line(cell) for column, cell in enumerate(row)]
        for row in (heading, *rows)
    ]
    widths = [max(len(row[column]) for row in table) for column in range(len(heading))]
    for row in table:
        cells = [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _short(text: str, widest: int) -> str:
    text = one_line(text)
    return text if len(text) <= widest else f"{text[: widest - 1]}…"
