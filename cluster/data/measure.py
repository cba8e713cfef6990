"""Measures the facts of a job's data that warnings look at, on a sample of the rows if there are many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cluster.data.sources import JobData
from cluster.data.tables.preprocessing import Preprocessing
from coordinator.learning.data_facts import DataFacts, InputFacts, LabelFacts, TargetFacts
from stages.data import Dataset
from stages.windows import Windows

_MOST_NUMBERS = 4_000_000
"""Of larger arrays, so many numbers are looked at: a fraction of a second."""
_MOST_OF_A_FILE = 500_000
"""The same for arrays that stay in a file, whose rows are read one by one."""
_MOST_ROWS_COMPARED = 1_000_000
_PART_NUMBERS = 500_000
_BLOCKS = 64
_WINDOWS = 2_000
_LEAST_NUMBERED = 20
"""Fewer distinct whole numbers in a row are no numbering of rows."""


def measure(data: JobData) -> DataFacts:
    """Return the facts of the rows as the network gets them. It reads at most a few million numbers of each array."""
    model, train, validation = data.spec.model_spec(), data.train, data.validation
    rules, loss = data.preprocessing, model.loss_function
    with np.errstate(all="ignore"):
        targets = _sample(train.y)
        columns = targets.T if targets.dtype.kind == "f" else targets.reshape(-1)
        constant_loss = loss.of_constant(columns, model.network.output.features) if columns.size else None
        repeated, repeated_train = _repeated(train, validation)
        return DataFacts(
            train_rows=len(train),
            validation_rows=len(validation),
            inputs=None if train.x.dtype.kind != "f" else _inputs(train.x, rules, normalised=_normalised(data)),
            labels=_labels(data) if loss.takes_labels else None,
            targets=None if loss.takes_labels else _targets(train.y, validation.y, rules),
            repeated=repeated,
            repeated_train=repeated_train,
            constant_loss=constant_loss,
        )


def _normalised(data: JobData) -> bool:
    ops = data.spec.model_spec().network.ops
    return any(op.layer.ignores_scale for op in ops if 0 in op.inputs)


def _inputs(x: Any, rules: Preprocessing | None, *, normalised: bool) -> InputFacts:
    rows, squares = 0, np.zeros(x.shape[1])
    low, high = np.full(x.shape[1], np.inf), np.full(x.shape[1], -np.inf)
    for part in _parts(x):
        rows += len(part)
        squares += np.einsum("rc,rc->c", part, part, dtype=np.float64)
        np.minimum(low, part.min(axis=0), out=low)
        np.maximum(high, part.max(axis=0), out=high)
    return InputFacts(
        rows=rows,
        sizes=np.sqrt(squares / max(1, rows)).tolist(),
        constant=(low == high).tolist() if rows > 1 else [False] * len(low),
        names=None if rules is None else rules.features,
        normalised=normalised,
    )


def _labels(data: JobData) -> LabelFacts | None:
    """Return None for tokens, and for more labels than are looked at: then none is counted."""
    parts = data.train.y, data.validation.y
    if any(not isinstance(y, np.ndarray) or y.ndim > 1 or len(y) > _MOST_NUMBERS for y in parts):
        return None
    model = data.spec.model_spec()
    classes, ignored = model.network.output.features, model.loss_function.ignore_index
    counts = [np.bincount(y[(y != ignored) & (y >= 0)], minlength=classes).tolist() for y in parts]
    rules = data.preprocessing
    names = None if rules is None or rules.target.classes is None else rules.target.classes
    return LabelFacts(train=counts[0], validation=counts[1], names=names if names and len(names) >= classes else None)


def _targets(train: Any, validation: Any, rules: Preprocessing | None) -> TargetFacts:
    outputs = train.shape[1]
    offsets, divisors = np.zeros(outputs), np.ones(outputs)
    if rules is not None and len(rules.target.offsets) == outputs:
        offsets, divisors = np.array(rules.target.offsets), np.array(rules.target.divisors)
    names = [f"y[:, {k}]" for k in range(outputs)] if rules is None else rules.target.names
    sample = _sample(train)
    same = np.flatnonzero((sample == sample[:1]).all(axis=0)) if len(sample) > 1 else ()
    numbering = None
    whole = all(isinstance(y, np.ndarray) and len(y) <= _MOST_NUMBERS for y in (train, validation))
    if outputs == 1 and whole and not len(same):
        every = np.concatenate([train, validation.reshape(-1, 1)], dtype=np.float64)
        numbering = _numbering(every[:, 0] * divisors[0] + offsets[0], float(abs(divisors[0])))
    return TargetFacts(
        constant=tuple((names[k], float(sample[0, k] * divisors[k] + offsets[k])) for k in same), numbering=numbering
    )


def _numbering(values: np.ndarray[Any, np.dtype[np.float64]], divisor: float) -> tuple[int, int] | None:
    """Return the first and last of these numbers if they are whole, all different, and nine of ten in their range.
    They were scaled in single precision perhaps, which has an error."""
    whole = np.round(values)
    if len(whole) < _LEAST_NUMBERED or np.abs(values - whole).max() > min(0.1, 1e-3 + 1e-6 * divisor):
        return None
    first, last = int(whole.min()), int(whole.max())
    if last - first + 1 > len(whole) / 0.9 or not (np.diff(np.sort(whole)) > 0).all():
        return None
    return first, last


def _repeated(train: Dataset, validation: Dataset) -> tuple[int, int] | tuple[None, None]:
    """Return how many validation rows are training rows too, and how many training rows an earlier one equals. None if
    the rows are windows, in a file, or too many."""
    arrays = train.x, train.y, validation.x, validation.y
    if not len(validation) or len(train) > _MOST_ROWS_COMPARED:
        return None, None
    if any(not isinstance(a, np.ndarray) or a.size > 4 * _MOST_NUMBERS for a in arrays):
        return None, None
    ours, theirs = np.sort(_hashes(train)), _hashes(validation)  # sorting takes a tenth of the time of numpy.unique
    places = np.minimum(np.searchsorted(ours, theirs), len(ours) - 1)
    return int(np.count_nonzero(ours[places] == theirs)), int(np.count_nonzero(ours[1:] == ours[:-1]))


def _hashes(rows: Dataset) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Return a number for each row, the same for equal rows, by whole-number arithmetic, which does not round."""
    found = np.zeros(len(rows), dtype=np.uint64)
    for array, seed in ((rows.x, 1), (rows.y.reshape(len(rows), -1), 2)):
        width = array.dtype.itemsize
        numbers = np.random.default_rng(seed).integers(0, 2**63, array.shape[1], dtype=np.uint64) * 2 + 1
        for start in range(0, len(array), step := max(1, _PART_NUMBERS // max(1, array.shape[1]))):
            part = np.ascontiguousarray(array[start : start + step]).view(f"u{width}").astype(np.uint64)
            part ^= part >> np.uint64(17)
            found[start : start + step] += (part * numbers).sum(axis=1, dtype=np.uint64)
    return found


def _sample(array: Any) -> Any:
    """Return rows of an array as `_parts` chooses them, in one array."""
    parts = list(_parts(array))
    return np.concatenate(parts) if parts else np.asarray(array[:0])


def _parts(array: Any) -> Iterator[Any]:
    """Yield all rows in parts; of a large array some blocks of neighbouring rows, which are quick to read from a
    file."""
    n, width = len(array), int(np.prod(array.shape[1:]))
    if isinstance(array, Windows):
        if n:
            yield array[np.unique(np.linspace(0, n - 1, min(n, _WINDOWS)).astype(np.int64))]
        return
    most = _MOST_NUMBERS if isinstance(array, np.ndarray) else _MOST_OF_A_FILE
    step = max(1, _PART_NUMBERS // max(1, width))
    starts: Sequence[int] = range(0, n, step)
    if n * width > most:
        step = max(1, min(step, most // (max(1, width) * _BLOCKS)))
        starts = sorted(set(np.random.default_rng(0).integers(0, max(1, n - step), _BLOCKS).tolist()))
    for start in starts:
        yield np.asarray(array[start : start + step])
