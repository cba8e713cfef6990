"""`pipetrain data`: describe a data file, and suggest a job for it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cluster.cli.figure_tables import aligned
from cluster.cli.texts import harmless
from cluster.data.content import Arrays, Table
from cluster.data.describing import ArrayFacts, ColumnFacts, array_facts, describe
from cluster.data.files import open_source, read_source
from cluster.data.suggested_job import arrays_job, images_job, table_job, text_job
from cluster.data.suggesting import Suggestion, suggest
from coordinator.job.source_names import BUILT_IN, is_text, is_url, local_path
from coordinator.texts import counted, size, some
from stages.errors import InvalidData, UserMistake

_MOST_COLUMNS = 60
_MOST_CLASSES = 20


@click.command()
@click.argument("file", metavar="FILE")
@click.option("--target", "targets", multiple=True, metavar="NAME", help="The column to predict; may be repeated.")
@click.option(
    "--write",
    "job",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="JOB.yaml",
    help="Write the suggested job file instead of showing it.",
)
@click.option("--overwrite", is_flag=True, help="Replace JOB.yaml if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def data(file: str, targets: tuple[str, ...], job: Path | None, overwrite: bool, as_json: bool) -> None:
    """Describe FILE and suggest a job file that trains on it.

    For a table: each column's type, empty cells and values, what is left out and why, and the column to predict. FILE
    may be whatever `data.source` of a job file may be.
    """
    if job is not None and job.exists() and not overwrite:
        raise UserMistake(f"--write: {job} exists; --overwrite replaces it")
    lines, document, text, problem = _described(file, targets, job)
    if as_json:
        click.echo(json.dumps({**document, "job": text or None, "problem": problem or None}))
    else:
        for line in lines:
            click.echo(harmless(line))
    if job is not None and text:
        try:
            job.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserMistake(f"--write: {job} cannot be written: {error.strerror}") from None
        click.echo(f"{job}: train it with `pipetrain train {job}`", err=as_json)
    elif text and not as_json:
        click.echo(f"\nsuggested job file; --write JOB.yaml writes it:\n\n{harmless(text)}", nl=False)
    if problem and (job is not None or targets):
        raise UserMistake(problem)
    if problem and not as_json:
        click.echo(f"\nno job is suggested: {harmless(problem)}")


Described = tuple[list[str], dict[str, Any], str, str]
"""Lines for people, plain values, the text of a job file, and why there is none; one of the last two is empty."""


def _described(file: str, targets: Sequence[str], job: Path | None) -> Described:
    path = local_path(file)
    if path is not None and os.path.isdir(path) and not file.endswith("/"):
        file += "/"  # in job files, this makes a name that of a folder
    source = _named(file, job)
    if is_text(file, None):
        return _text(file, source)
    content = read_source(file)
    if isinstance(content, Table):
        return _table(content, file, source, targets)
    if targets:
        raise UserMistake(f"--target: {file} has no columns")
    return _arrays(content, file, source)


def _named(file: str, job: Path | None) -> str:
    """Return the file's name as the job file has it: relative to its folder, if it was given as relative."""
    path = local_path(file)
    if path is None or is_url(file) or job is None or os.path.isabs(path):
        return file
    return os.path.relpath(path, job.parent) + ("/" if path.endswith("/") else "")


def _table(table: Table, file: str, source: str, targets: Sequence[str]) -> Described:
    columns = describe(table)
    lines = [f"{file}: {counted(table.n_rows, 'row')}, {counted(len(columns), 'column')}", *table.notes, ""]
    lines += aligned(
        ("column", "type", "empty", "different", "values"),
        [(c.name, c.type, f"{c.empty:,}", f"{c.different:,}", c.summary) for c in columns[:_MOST_COLUMNS]],
        left=(0, 1, 4),
    )
    if len(columns) > _MOST_COLUMNS:
        lines.append(f"and {len(columns) - _MOST_COLUMNS:,} more columns; --json has all")
    document = {"rows": table.n_rows, "notes": list(table.notes), "columns": [c.document() for c in columns]}
    try:
        found = suggest(columns, table.index, targets, file)
    except UserMistake as error:
        return lines, document, "", str(error)
    lines += ["", *_suggestion_lines(found, table.index, columns)]
    document |= {"target": list(found.target), "inputs": list(found.inputs), "left_out": dict(found.left_out)}
    return lines, document, table_job(found, source), ""


def _suggestion_lines(found: Suggestion, index: Sequence[str], columns: Sequence[ColumnFacts]) -> Iterator[str]:
    kind = "numbers"
    if found.classes is not None:
        (target,) = (column for column in columns if column.name == found.target[0])
        kind = _classes([value for value, _ in sorted(target.values)])
    yield f"target: {some(found.target, 10)} ({found.why_target}) · {kind}"
    yield f"inputs ({len(found.inputs):,}): {some(found.inputs, 20)}"
    left = [*((name, "an index") for name in index), *found.left_out]
    if left:
        yield "left out: " + some([f"{name or 'the nameless column'} ({why})" for name, why in left], 20)


def _arrays(content: Arrays, file: str, source: str) -> Described:
    lines, document, facts = [f"{file}: arrays", *content.notes], dict[str, Any](), dict[str, ArrayFacts | None]()
    for name, array in (("x", content.x), ("y", content.y)):
        if array is not None:
            found = facts[name] = array_facts(array)
            shape = " × ".join(f"{n:,}" for n in array.shape)
            lines.append(f"{name}: {shape}, {array.dtype}" + ("" if found is None else f", {found.summary}"))
            document[name] = {"shape": list(array.shape), "type": str(array.dtype)}
            document[name] |= {} if found is None or math.isnan(found.mean) else asdict(found)
    x, y, target = content.x, content.y, facts.get("y")
    if content.classes is not None:
        lines.append(f"target: class · {_classes(content.classes)}")
        return lines, {**document, "classes": list(content.classes)}, images_job(source, x.shape[0]), ""
    if y is None:
        return lines, document, "", f"{file}: has no array y, so there is nothing to predict"
    if facts["x"] is None or target is None or x.shape[:1] != y.shape[:1] or not x.ndim:
        return lines, document, "", f"{file}: x and y must hold numbers, and have as many rows"
    outputs = math.prod(y.shape[1:]) if target.labels is None else max(target.labels, 2)
    lines.append(f"target: y · {outputs:,} {'numbers a row' if target.labels is None else 'classes'}")
    inputs, classes = math.prod(x.shape[1:]), target.labels is not None
    return lines, document, arrays_job(source, x.shape[0], inputs, outputs, classes=classes), ""


def _classes(names: Sequence[str]) -> str:
    return f"{len(names):,} {'class' if len(names) == 1 else 'classes'}: {some(names, _MOST_CLASSES)}"


def _text(file: str, source: str) -> Described:
    if file in BUILT_IN:
        return [f"{file}: the text of the modules in Python's standard library"], {}, text_job(source), ""
    with open_source(file) as opened:
        start = opened.read(2**20)
        rest = opened.seek(0, os.SEEK_END)
    document: dict[str, Any] = {"bytes": rest}
    if not file.lower().endswith(".txt"):
        return [f"{file}: token numbers, {size(rest)}"], document, "", f"{file}: needs data.block and a vocabulary"
    text = start.decode("utf-8", errors="replace")
    lines = [f"{file}: text, {size(rest)}; the first {len(text):,} characters are of {len(set(text)):,} kinds"]
    if not text.strip():
        raise InvalidData(f"{file}: has no text")
    return lines, document, text_job(source), ""
