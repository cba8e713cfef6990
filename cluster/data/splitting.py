"""Which rows of a source are for validation. See [Note: random streams] in stages/data.py.

All three ways follow one order of the rows, `default_rng([seed, 3]).permutation(n)`:

plain        the first k rows of the order
stratified   of each class, in the order of the classes, its first rows in the order; how many of each is by largest
             remainder, so that they are k together
groups       whole groups, in the order of their first rows, until they have at least k rows

Training rows are the others, in that order. Without validation they are all rows, as they stand in the file.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cluster.data.tables.problems import shown
from coordinator.job.data_section import DataSection
from coordinator.texts import counted, some
from stages.data import RowNumbers
from stages.errors import InvalidData

Codes = NDArray[np.integer]
"""The class or the group of each row, (rows,), numbered from 0."""
_PART_ROWS = 2**16


def validation_count(validation: float | int, n_rows: int) -> int:
    """Return how many rows `data.validation` means: a share of them (float), or a number (int)."""
    return validation if isinstance(validation, int) else round(n_rows * validation)


def split_rows(
    data: DataSection,
    n_rows: int,
    seed: int,
    *,
    classes: Codes | None = None,
    names: tuple[str, ...] = (),
    groups: Codes | None = None,
    stratify: bool = False,
) -> tuple[RowNumbers, RowNumbers]:
    """Return the numbers of training and validation rows.

    With `data.stratified`, `classes` are split alike; their `names` are for messages. `stratify`: also if the job does
    not say so, if every class has enough rows. Raises InvalidData if a part would be empty.
    """
    assert not isinstance(data.validation, str), "a second source splits nothing"
    if not data.validation:
        return np.arange(n_rows), np.arange(0)
    k = validation_count(data.validation, n_rows)
    if not 0 < k < n_rows:
        raise InvalidData(_empty_part(data, n_rows, k))
    order = np.random.default_rng([seed, 3]).permutation(n_rows)
    if groups is not None:
        chosen = group_rows(order, groups, k)
        if chosen.all():
            raise InvalidData(
                f"{data.source}: whole groups of {shown(data.group)} leave no row for training; change data.validation"
            )
        return order[~chosen[order]], order[chosen[order]]
    wanted = stratify if data.stratified is None else data.stratified
    if not wanted:
        return order[k:], order[:k]
    if classes is None:
        raise InvalidData(f"{data.source}: data.stratified needs a target of classes; remove it")
    quotas = class_quotas(np.bincount(classes), k)
    short = np.flatnonzero((quotas < 1) | (quotas >= np.bincount(classes)))
    if len(short) and data.stratified:
        listed = some([shown(names[c] if names else int(c)) for c in short.tolist()], 10)
        raise InvalidData(
            f"{data.source}: data.stratified needs rows of every class in both parts, but too few are of {listed}; "
            "remove it, or change data.validation"
        )
    if len(short):
        return order[k:], order[:k]
    chosen = class_places(order, classes, quotas)
    return order[~chosen], order[chosen]


def class_quotas(sizes: Codes, k: int) -> NDArray[np.int64]:
    """Return how many of k rows are of each class, by largest remainder; between equal ones the first class."""
    n = int(sizes.sum())
    quotas, remainders = np.divmod(sizes.astype(np.int64) * k, n)
    for c in np.argsort(-remainders, kind="stable")[: k - int(quotas.sum())]:
        quotas[c] += 1
    return quotas


def class_places(order: RowNumbers, classes: Codes, quotas: Codes) -> NDArray[np.bool_]:
    """Return for each place in the order whether its row is among the first `quotas[c]` rows of its class c. Looks no
    further than it must: the first tenth of the order has about a tenth of each class."""
    chosen = np.zeros(len(order), dtype=bool)
    left, start = np.array(quotas, dtype=np.int64), 0
    while left.any():
        own = classes[order[start : start + _PART_ROWS]]
        short = own.astype(np.uint16) if len(quotas) <= 2**16 else own  # sorted by counting
        by_class, sizes = np.argsort(short, kind="stable"), np.bincount(own, minlength=len(quotas))
        firsts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
        place = np.empty(len(own), dtype=np.int64)
        place[by_class] = np.arange(len(own)) - np.repeat(firsts, sizes)
        chosen[start : start + len(own)] = place < left[own]
        left, start = np.maximum(left - sizes, 0), start + _PART_ROWS
    return chosen


def group_rows(order: RowNumbers, groups: Codes, k: int) -> NDArray[np.bool_]:
    """Return for each row whether its group is among the first ones in the order that have k rows together."""
    found, first = np.unique(groups[order], return_index=True)
    in_turn = found[np.argsort(first)]
    sizes = np.bincount(groups)
    n_groups = int(np.searchsorted(np.cumsum(sizes[in_turn]), k)) + 1
    taken = np.zeros(len(sizes), dtype=bool)
    taken[in_turn[:n_groups]] = True
    return taken[groups]


def _empty_part(data: DataSection, n_rows: int, k: int) -> str:
    kind = "validation" if k <= 0 else "training"
    if isinstance(data.validation, int):
        return (
            f"{data.source}: data.validation is {counted(data.validation, 'row')}, but it has {n_rows:,}, which leaves "
            f"none for {kind}; give fewer, or a share such as 0.2"
        )
    return (
        f"{data.source}: a share of {data.validation} of its {n_rows} rows leaves none for {kind}; "
        "change data.validation or give a second source"
    )
