"""Decides from the facts of a job's data which warnings it deserves, before the first step."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from coordinator.learning.data_facts import DataFacts, InputFacts
from coordinator.learning.warning import LearningWarning
from coordinator.texts import counted, number, share, some

_LARGE, _APART = 10.0, 100.0
"""Columns differ in size if one is larger than _LARGE, and _APART times larger than another one."""
_FAR, _FAR_ONE, _SMALL_ROW = 30.0, 100.0, 0.05
"""Inputs are large if their columns' median size is _FAR, or one is _FAR_ONE, and small if a whole row's is below
_SMALL_ROW."""
_FEW_COLUMNS, _MANY_CONSTANT = 50, 0.2
"""Up to _FEW_COLUMNS columns none should be constant; of more, such as the border of pictures, some may be."""
_ALMOST_ALL = 0.99
_ROWS_A_CLASS, _SOME_CLASSES, _SOME_ROWS = 10, 10, 20


def data_warnings(facts: DataFacts) -> list[LearningWarning]:
    """Return the warnings, each kind at most once."""
    return [warning for rule in _RULES if (warning := rule(facts)) is not None]


def _unscaled(facts: DataFacts) -> LearningWarning | None:
    found = facts.inputs
    columns = [] if found is None else _varying(found)
    if found is None or not columns:
        return None
    largest, smallest = max(columns, key=found.sizes.__getitem__), min(columns, key=found.sizes.__getitem__)
    most, least = found.sizes[largest], found.sizes[smallest]
    if most < _LARGE or most < _APART * least:
        return _far(found, columns)
    how = (
        "scale each column of x to mean 0 and standard deviation 1"
        if found.names is None
        else "use `data.scale: standard`"
    )
    return LearningWarning(
        code="unscaled_inputs",
        text=(
            f"the inputs differ in size: values of {found.name(largest)} are about {number(most)}, of "
            f"{found.name(smallest)} about {number(least)}, so the network hardly sees the small ones; {how}"
        ),
        figures={
            "largest": found.name(largest), "largest_size": most,
            "smallest": found.name(smallest), "smallest_size": least,
        },
    )  # fmt: skip


def _far(found: InputFacts, columns: list[int]) -> LearningWarning | None:
    if found.normalised:
        return None
    sizes = [found.sizes[column] for column in columns]
    most, typical = max(sizes), statistics.median(sizes)
    row = sum(size * size for size in found.sizes) ** 0.5
    large = typical >= _FAR or most >= _FAR_ONE
    if not large and row > _SMALL_ROW:
        return None
    how = (
        "divide x by its largest value, or scale each column to mean 0 and standard deviation 1"
        if found.names is None
        else "use `data.scale: standard`"
    )
    told = "large" if large else "small"
    return LearningWarning(
        code="inputs_far_from_one",
        text=(
            f"the inputs are very {told}: typically {number(typical)}, in the largest column {number(most)}, and "
            f"networks learn best from inputs of about 1; {how}"
        ),
        figures={"typical_size": typical, "largest_size": most},
    )


def _constant_columns(facts: DataFacts) -> LearningWarning | None:
    found = facts.inputs
    if found is None:
        return None
    names = [found.name(column) for column, constant in enumerate(found.constant) if constant]
    columns = len(found.constant)
    if not names or (columns > _FEW_COLUMNS and len(names) <= _MANY_CONSTANT * columns):
        return None
    has, says, them = ("has", "says", "it") if len(names) == 1 else ("have", "say", "them")
    return LearningWarning(
        code="constant_columns",
        text=(
            f"{len(names):,} of {counted(columns, 'input column')} {has} the same value in all "
            f"{counted(found.rows, 'training row')} that were looked at ({some(names)}), and so {says} nothing about "
            f"the target; leave {them} out, or look how the data was made"
        ),
        figures={"columns": names[:100], "constant": len(names), "of": columns},
    )


def _classes(facts: DataFacts) -> LearningWarning | None:
    """One class only, almost one, a class for each row, or for few rows."""
    labels = facts.labels
    if labels is None:
        return None
    total = sum(labels.train)
    present = [label for label, count in enumerate(labels.train) if count]
    if total < 2 or not present:
        return None
    most = max(present, key=labels.train.__getitem__)
    part = labels.train[most] / total
    if len(present) == 1:
        return LearningWarning(
            code="one_class",
            text=(
                f"all {counted(total, 'training row')} are of class {labels.name(most)}, so there is nothing to "
                "learn; look at `data.target` and at how the rows were chosen"
            ),
            figures={"class": labels.name(most), "rows": total},
        )
    if part >= _ALMOST_ALL:
        return LearningWarning(
            code="unbalanced_classes",
            text=(
                f"{share(part, 2)} of the training rows are of class {labels.name(most)}: always answering it has "
                "that accuracy too, so accuracy says little; add rows of the other classes, or repeat theirs"
            ),
            figures={"class": labels.name(most), "share": part},
        )
    if len(present) == total and total >= _SOME_ROWS:
        return LearningWarning(
            code="row_numbers",
            text=(
                f"each of the {counted(total, 'training row')} has a class of its own, as if the target were the "
                "number or the name of the row; name the column to predict in `data.target`"
            ),
            figures={"classes": len(present), "rows": total},
        )
    if len(present) > max(_SOME_CLASSES, total / _ROWS_A_CLASS):
        return LearningWarning(
            code="many_classes",
            text=(
                f"{counted(total, 'training row')} have {len(present):,} classes, {total / len(present):.1f} rows "
                "each on average, too few to learn from; if the target is a quantity, use `model.loss: mse`, "
                "else get more rows or join classes"
            ),
            figures={"classes": len(present), "rows": total},
        )
    return None


def _unseen_classes(facts: DataFacts) -> LearningWarning | None:
    labels = facts.labels
    if labels is None:
        return None
    counts = list(labels.train) + [0] * (len(labels.validation) - len(labels.train))
    unseen = [label for label, count in enumerate(labels.validation) if count and not counts[label]]
    if not unseen or sum(1 for count in counts if count) == sum(counts):  # then `_classes` has said it
        return None
    rows = sum(labels.validation[label] for label in unseen)
    names = [labels.name(label) for label in unseen]
    return LearningWarning(
        code="unseen_classes",
        text=(
            f"{counted(rows, 'validation row')} {'has a class' if rows == 1 else 'have classes'} that no training row "
            f"has ({some(names)}), and so cannot be right; use `data.stratified: true`, or more rows of these classes"
        ),
        figures={"classes": names[:100], "rows": rows},
    )


def _targets(facts: DataFacts) -> LearningWarning | None:
    targets = facts.targets
    if targets is None:
        return None
    if targets.numbering is not None:
        first, last = targets.numbering
        return LearningWarning(
            code="row_numbers",
            text=(
                f"the target has each whole number from {first:,} to {last:,} about once, like the number of a row; if "
                "it is one, name the column to predict in `data.target`"
            ),
            figures={"first": first, "last": last},
        )
    if targets.constant:
        name, value = targets.constant[0]
        names = [name for name, _ in targets.constant]
        also = "" if len(names) == 1 else f" (and so are {some(names[1:])})"
        return LearningWarning(
            code="constant_target",
            text=(
                f"the target {name} is {number(value)} in every training row{also}, so there is nothing to learn; look "
                "at `data.target` and at how the rows were chosen"
            ),
            figures={"targets": names[:100], "value": value},
        )
    return None


def _repeated_rows(facts: DataFacts) -> LearningWarning | None:
    """Rows of few different values repeat by chance, and then in the training rows as well: that is no fault."""
    if facts.repeated is None or facts.repeated_train is None or facts.validation_rows < _SOME_ROWS:
        return None
    if facts.repeated < 0.5 * facts.validation_rows or facts.repeated_train > 0.1 * facts.train_rows:
        return None
    return LearningWarning(
        code="repeated_rows",
        text=(
            f"{facts.repeated:,} of {counted(facts.validation_rows, 'validation row')} are training rows too, so "
            "validation does not say how good the network is for new rows; remove them from one of the two"
        ),
        figures={"repeated": facts.repeated, "rows": facts.validation_rows},
    )


def _varying(found: InputFacts) -> list[int]:
    return [
        column
        for column, (size, constant) in enumerate(zip(found.sizes, found.constant, strict=True))
        if size > 0 and not constant
    ]


_RULES: tuple[Callable[[DataFacts], LearningWarning | None], ...] = (
    _unscaled,
    _constant_columns,
    _classes,
    _targets,
    _unseen_classes,
    _repeated_rows,
)
