"""`pipetrain lecture`: compare each value of backpropagation with its formula and a finite difference."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from coordinator.lecture import NETWORKS, LectureNetwork, LectureRow, lecture_rows
from coordinator.lecture.formulae import symbol, weight_letter
from coordinator.lecture.rows import DIFFERENCE_TOLERANCE, FORMULA_TOLERANCE
from stages.arrays import Array


@click.command()
@click.option(
    "--network", "which", type=click.Choice([*NETWORKS, "both"]), default="both", help="Which of the two networks."
)
@click.option("--json", "as_json", is_flag=True, help="Print the tables as JSON.")
def lecture(which: str, as_json: bool) -> int:
    """Compute each value of backpropagation in two small networks in three ways; exit with 1 if they disagree.

    Each network runs as a pipeline with one layer in each stage. The tables show every f, h and derivative that the
    stages compute, beside the result of the formula derived by hand and beside a finite difference: the command changes
    that one value a little and computes the rest of the network again. examples/lecture describes the networks.
    """
    chosen = list(NETWORKS.values()) if which == "both" else [NETWORKS[which]]
    tables = [(network, lecture_rows(network)) for network in chosen]
    agree = all(row.agrees for _, rows in tables for row in rows)
    if as_json:
        click.echo(json.dumps({"agrees": agree, "networks": [_document(*table) for table in tables]}))
    else:
        for table in tables:
            _show(*table)
    return 0 if agree else 1


def _document(network: LectureNetwork, rows: Iterable[LectureRow]) -> dict[str, Any]:
    return {
        "name": network.name,
        "equation": network.equation,
        "activation": network.activation,
        "x": network.x.tolist(),
        "y": network.y.tolist(),
        "parameters": {name: value.tolist() for name, value in _parameters(network)},
        "tolerances": {"formula": FORMULA_TOLERANCE, "finite_difference": DIFFERENCE_TOLERANCE},
        "rows": [row.as_dict() for row in rows],
    }


def _parameters(network: LectureNetwork) -> list[tuple[str, Array]]:
    letters = ("β", network.beta), (weight_letter(network), network.omega)
    return [(symbol(letter, k), value) for letter, values in letters for k, value in enumerate(values)]


def _show(network: LectureNetwork, rows: list[LectureRow]) -> None:
    parameters = _parameters(network)
    table = Table(box=SIMPLE_HEAD, show_lines=network.x.ndim > 0, pad_edge=False)
    for heading in ("", "formula", "pipeline", "by formula", "finite difference", "largest Δ"):
        table.add_column(heading, no_wrap=True, vertical="middle")
    for row in rows:
        largest = max(row.from_formula, row.from_difference or 0.0)
        cells = (row.symbol, row.formula, *map(_text, (row.pipeline, row.by_hand, row.finite_difference)))
        table.add_row(*map(Text, cells), Text(f"{largest:.1e}" + ("" if row.agrees else "  DISAGREE")))
    parts: list[RenderableType] = [
        Text(f"The {network.name} network: {network.equation}, a = {network.activation}"),
        Text(f"A pipeline of {2 * len(network.beta) - 1} stages, one layer and one worker each"),
        _given([("x", network.x), ("y", network.y)]),
        _given(parameters[: len(parameters) // 2]),
        _given(parameters[len(parameters) // 2 :]),
        table,
        Text(_verdict(rows)),
        Text(""),
    ]
    console = Console(highlight=False)
    width = max(Measurement.get(console, console.options.update(max_width=1000), part).maximum for part in parts)
    console.width = max(console.width, width)
    with console.capture() as capture:
        console.print(*parts, sep="\n")
    encoding = sys.stdout.encoding  # without Greek letters in it, print their codes
    click.echo(capture.get().encode(encoding, "backslashreplace").decode(encoding), nl=False)


def _given(values: list[tuple[str, Array]]) -> Table:
    grid = Table.grid(padding=(0, 1))
    cells: list[Text] = []
    for name, value in values:
        grid.add_column(vertical="middle", no_wrap=True)
        grid.add_column(no_wrap=True)
        cells += [Text(f"{name} ="), Text(_text(value).replace("\n", "   \n") + "   ")]
    grid.add_row(*cells)
    return grid


def _verdict(rows: list[LectureRow]) -> str:
    wrong = [row.symbol for row in rows if not row.agrees]
    formula = max(row.from_formula for row in rows)
    difference = max(row.from_difference for row in rows if row.from_difference is not None)
    return (
        (f"{', '.join(wrong)} DISAGREE: " if wrong else f"All {len(rows)} agree: ")
        + f"formula within {formula:.1e} (at most {FORMULA_TOLERANCE:g}), "
        + f"finite difference within {difference:.1e} (at most {DIFFERENCE_TOLERANCE:g})"
    )


def _text(value: Array | None) -> str:
    """Return a number as text, a bias as a column, a matrix as lines with aligned columns; empty for None."""
    if value is None:
        return ""
    matrix = value.reshape(len(value) if value.ndim else 1, -1)
    lines = [[f"{entry + 0.0:.7g}" for entry in line] for line in matrix.tolist()]  # + 0.0: no minus before a zero
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines)
