"""How good a network is, by class or target: the content of evaluation.json and of `evaluate --json`."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cluster.data.tables.preprocessing import Preprocessing
from cluster.run.run_dir import RunDir
from coordinator.train.rows import EvalRow, JudgedEvaluation
from stages.quality import ClassCounts, Counts, NumberSums, Quality

EVALUATION_FORMAT = "pipetrain.evaluation/1"
_EVERY_S = 1.0
_UNDEFINED = None
"""A figure that has no value, such as the precision of a class that was never predicted."""


class EvaluationLog:
    """Writes the figures of a run's last evaluation: at most every second while it trains, and at its end."""

    def __init__(self, run_dir: RunDir, rules: Preprocessing | None) -> None:
        self._run_dir, self._rules = run_dir, rules
        self._waiting: JudgedEvaluation | None = None
        self._next = 0.0

    def take(self, row: EvalRow) -> None:
        """Take an evaluation. Raises OSError."""
        if isinstance(row, JudgedEvaluation) and row.quality is not None:
            self._waiting = row
            if time.monotonic() >= self._next:
                self.write()

    def write(self) -> None:
        """Write the last evaluation, if it is not written yet. Raises OSError."""
        row, self._waiting = self._waiting, None
        if row is not None and row.quality is not None:
            self._run_dir.evaluation(evaluation_document(row, row.quality, self._rules))
            self._next = time.monotonic() + _EVERY_S


def evaluation_document(row: EvalRow, quality: Quality, rules: Preprocessing | None) -> dict[str, Any]:
    """Return the content of evaluation.json for an evaluation of the validation rows."""
    return {
        "format": EVALUATION_FORMAT,
        "step": row.step,
        "epoch": row.epoch,
        "rows": row.samples,
        "loss": row.loss_per_row,
        **({} if row.accuracy is None else {"accuracy": row.accuracy}),
        **figures(quality, rules),
    }


def figures(quality: Quality, rules: Preprocessing | None) -> dict[str, Any]:
    """Return the figures as plain values. For classes: `classes` (name, precision, recall, f1, support), `macro`, their
    plain means, and `confusion`, rows for true classes and columns for predicted ones. For numbers: `targets` (name,
    r2, mae, rmse), in the target's own unit.

    A figure without a value is None: the precision of a class that was never predicted, R² of a constant target.
    """
    if isinstance(quality, ClassCounts):
        return _of_classes(quality, class_names(rules, len(quality.true), together=quality.confusion is None))
    return _of_numbers(quality, rules)


def class_names(rules: Preprocessing | None, classes: int, *, together: bool = False) -> tuple[str, ...]:
    """Return the names of the classes; their numbers if they have none. `together`: a row may have several, and each
    is a target of its own."""
    if rules is not None and rules.target.classes is not None and len(rules.target.classes) == classes:
        return rules.target.classes
    if rules is not None and together and len(rules.target.names) == classes:
        return rules.target.names
    return tuple(map(str, range(classes)))


def _of_classes(counts: ClassCounts, names: Sequence[str]) -> dict[str, Any]:
    classes = list[dict[str, Any]]()
    for name, true, predicted, right in zip(names, counts.true, counts.predicted, counts.right, strict=True):
        either = int(true + predicted)
        classes.append(
            {
                "name": name,
                "precision": _share(right, predicted),
                "recall": _share(right, true),
                "f1": 2 * int(right) / either if either else _UNDEFINED,
                "support": int(true),
            }
        )
    found: dict[str, Any] = {
        "classes": classes,
        "macro": {key: _mean([one[key] for one in classes]) for key in ("precision", "recall", "f1")},
    }
    if counts.confusion is not None:
        found["confusion"] = counts.confusion.tolist()
    return found


def _of_numbers(sums: NumberSums, rules: Preprocessing | None) -> dict[str, Any]:
    outputs = len(sums.mean)
    names = rules.target.names if rules is not None and len(rules.target.names) == outputs else None
    units = rules.target.divisors if rules is not None and len(rules.target.divisors) == outputs else (1.0,) * outputs
    return {
        "targets": [
            {
                "name": str(k) if names is None else names[k],
                "r2": 1 - float(sums.squared[k] / sums.spread[k]) if sums.spread[k] else _UNDEFINED,
                "mae": float(sums.absolute[k]) / sums.rows * units[k],
                "rmse": math.sqrt(float(sums.squared[k]) / sums.rows) * units[k],
            }
            for k in range(outputs)
        ]
    }


def folded(document: Mapping[str, Any], most: int) -> tuple[list[str], list[list[int]]]:
    """Return names and confusion matrix with at most `most` classes: those in the most mistakes, in their order; the
    others become one, the last. The document must have a confusion matrix."""
    names, confusion = [one["name"] for one in document["classes"]], np.array(document["confusion"], dtype=np.int64)
    if len(names) <= most:
        return names, confusion.tolist()
    mistakes = confusion.sum(axis=0) + confusion.sum(axis=1) - 2 * np.diag(confusion)
    kept = np.sort(np.argsort(-mistakes, kind="stable")[: most - 1])
    rest = np.setdiff1d(np.arange(len(names)), kept)
    small: Counts = np.zeros((most, most), dtype=np.int64)
    small[:-1, :-1] = confusion[np.ix_(kept, kept)]
    small[:-1, -1] = confusion[np.ix_(kept, rest)].sum(axis=1)
    small[-1, :-1] = confusion[np.ix_(rest, kept)].sum(axis=0)
    small[-1, -1] = confusion[np.ix_(rest, rest)].sum()
    return [*(names[k] for k in kept), f"{len(rest):,} others"], small.tolist()


def _share(part: Any, whole: Any) -> float | None:
    return int(part) / int(whole) if whole else _UNDEFINED


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else _UNDEFINED
