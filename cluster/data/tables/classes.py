"""Which classes a target has, and in which order they are numbered."""

from __future__ import annotations

import numpy as np

from cluster.data.tables.cells import CategoryCells
from cluster.data.tables.problems import shown
from coordinator.texts import counted, some
from stages.errors import InvalidData
from stages.losses import Loss


def classes_of(cells: CategoryCells, loss: Loss, outputs: int | None, source: str, *, said: bool) -> tuple[str, ...]:
    """Return the names of the classes 0, 1, … of a target.

    Labels from 0 to `outputs` − 1 keep their numbers; all other texts, truth values and numbers are numbered in sorted
    order. `outputs` of the last layer: None if they follow from the classes. `said`: the job calls the column a
    category, so that its classes may be any numbers. The loss's `ignore_index` is no class. Raises InvalidData.
    """
    name = shown(cells.name)
    ignored = None if loss.ignore_index is None else str(loss.ignore_index)
    texts = tuple(text for text in cells.texts if text != ignored)
    if cells.numbers is not None:
        broken = np.flatnonzero(cells.numbers != np.floor(cells.numbers))
        if len(broken) and not said:
            raise InvalidData(
                f"{source}: column {name}, the target, holds numbers such as {cells.texts[broken[0]]}, but the loss "
                f"takes classes; write model.loss: mse to predict numbers, or data.columns: {{{cells.name}: category}}"
            )
    if set(texts) <= {"true", "false"} and cells.numbers is None and texts:
        texts = ("false", "true")
    if not loss.takes_labels:
        return _two(texts, name, source)
    if outputs is None:
        if len(texts) < loss.least_outputs:
            raise InvalidData(
                f"{source}: column {name}, the target, has {_listed(texts)}; there is nothing to tell apart"
            )
        return texts
    numbers = {str(k) for k in range(outputs)}
    if cells.numbers is not None and numbers.issuperset(texts):
        return tuple(str(k) for k in range(outputs))
    if len(texts) != outputs:
        raise InvalidData(
            f"{source}: column {name}, the target, has {_listed(texts)}, but the last layer gives {outputs} outputs; "
            "write units: classes in the last layer"
        )
    return texts


def _two(texts: tuple[str, ...], name: str, source: str) -> tuple[str, ...]:
    if len(texts) != 2:
        raise InvalidData(
            f"{source}: column {name}, the target, has {_listed(texts)}, but binary_cross_entropy takes two; "
            "write model.loss: cross_entropy, with units: classes in the last layer"
        )
    return texts


def _listed(texts: tuple[str, ...]) -> str:
    return f"{counted(len(texts), 'class')} ({some(texts, 10)})"
