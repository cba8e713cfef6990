"""What is said to a user about the data of a job."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from cluster.data.tables.cells import Cells, Mask
from cluster.data.tables.preprocessing import CategoryRule, InputRule, Preprocessing
from cluster.data.texts.loading import Vocabulary
from coordinator.texts import counted, number, some
from stages.data import Dataset

_MOST_NAMES = 20


def what_is_read(rules: Preprocessing, train: int, validation: int, dropped: str = "") -> str:
    """Return a line about a table's columns and rows: "inputs (3): a, b, c · target: y (classes: no, yes) · …"."""
    target = some(rules.target.names, _MOST_NAMES)
    kind = "numbers" if rules.target.classes is None else f"classes: {some(rules.target.classes, _MOST_NAMES)}"
    return " · ".join(
        [
            f"inputs ({len(rules.columns):,}): {some(rules.columns, _MOST_NAMES)}",
            f"target: {target} ({kind})",
            rows_text(train, validation),
            *([dropped] if dropped else []),
        ]
    )


def rows_text(train: int, validation: int) -> str:
    """Return "288 rows train, 72 validation"; without validation "360 rows train, no validation"."""
    return f"{counted(train, 'row')} train, {f'{validation:,}' if validation else 'no'} validation"


def what_arrays_hold(train: Dataset, validation: Dataset, classes: Sequence[str] | None = None) -> str:
    """Return a line about rows without names: "inputs: 64 numbers a row (x) · target: 1 label a row (y) · …". `classes`
    are those of images."""
    x = f"inputs: {counted(train.x.shape[1], 'token' if train.x.dtype.kind in 'iu' else 'number')} a row (x)"
    width = train.y.shape[1] if train.y.ndim > 1 else 1
    y = f"target: {counted(width, 'number' if train.y.dtype.kind == 'f' else 'label')} a row (y)"
    y = y if classes is None else f"target: the class of an image (classes: {some(classes, _MOST_NAMES)})"
    return f"{x} · {y} · {rows_text(len(train), len(validation))}"


def what_text_holds(train: Dataset, validation: Dataset, vocabulary: Vocabulary) -> str:
    """Return a line about text: "text of characters, a vocabulary of 65 · rows of 64 tokens · …"."""
    kinds = {"characters": "characters", "bytes": "bytes", "numbers": "token numbers"}
    kind = kinds.get(vocabulary.kind, "tokens of a tokenizer")
    words = f"text of {kind}, a vocabulary of {vocabulary.size:,}"
    return f"{words} · rows of {counted(train.x.block, 'token')} · {rows_text(len(train), len(validation))}"


def left_out_line(left_out: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield a line about the columns that are not used, if there are any."""
    if left_out:
        yield f"left out ({len(left_out):,}): {some([f'{name} ({why})' for name, why in left_out], _MOST_NAMES)}"


def filled_line(cells: Mapping[str, Cells], inputs: Sequence[InputRule], used: Mask) -> Iterator[str]:
    """Yield a line about the columns whose empty cells were filled in, if there are any."""
    told = []
    for rule in inputs:
        empty = None if rule.fill is None else cells[rule.name].empty()
        if n := 0 if empty is None else int(np.count_nonzero(empty & used)):
            fill = number(rule.fill) if isinstance(rule.fill, float) else rule.fill
            how = rule.missing.replace("_", " ")
            told.append(f"{rule.name} ({counted(n, 'empty cell')}{', each' if n > 1 else ''} with the {how} {fill})")
    if told:
        yield f"filled in ({len(told):,}): {some(told, _MOST_NAMES)}"


def features_problem(inputs: Sequence[InputRule], given: Sequence[int] | None) -> str | None:
    """Return the problem if `model.input` does not fit the columns, with the numbers that each of them gives."""
    n_features = sum(len(rule.features) for rule in inputs)
    if given is None or math.prod(given) == n_features:
        return None
    listed = [
        f"{rule.name} ({len(rule.features)}: {some(rule.categories, 5)})"
        if isinstance(rule, CategoryRule)
        else rule.name
        for rule in inputs
    ]
    return (
        f"model.input is {list(given)} = {math.prod(given)}, but the columns give {counted(n_features, 'number')} a "
        f"row: {some(listed, _MOST_NAMES)}; leave model.input out"
    )


def _values(rule: InputRule) -> str:
    return f" ({len(rule.categories)}: {some(rule.categories, 5)})" if isinstance(rule, CategoryRule) else ""
