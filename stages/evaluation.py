"""Sums up an evaluation, chunk by chunk."""

from __future__ import annotations

import numpy as np

from stages.arrays import Array
from stages.errors import NonFinite
from stages.losses import Targets
from stages.orders import Evaluate, EvaluateReport
from stages.quality import MOST_JUDGED, Quality, added, quality
from stages.spec import ModelSpec


class EvaluationSums:
    """The loss, the right answers and the figures by class or target, over all chunks so far."""

    def __init__(self, model: ModelSpec, order: Evaluate, step: int | None) -> None:
        self._loss, self._output, self._order, self._step = model.loss_function, model.network.output, order, step
        self._judges = not self._output.positions and self._output.features <= MOST_JUDGED
        self._total, self._correct, self._counted, self._rows = 0.0, 0, 0, 0
        self._quality: Quality | None = None

    def take(self, y: Array, targets: Targets, rows: int) -> None:
        """Take in the outputs y of `rows` rows, which may be overwritten. Raises NonFinite."""
        if self._judges:
            self._quality = added(self._quality, quality(self._loss, y, targets))
        result = self._loss.evaluate(y, targets, 1)
        if not np.isfinite(result.total):
            raise NonFinite(
                f"the loss of {self._order.split} rows became {result.total}"
                + ("" if self._step is None else f" after step {self._step}")
            )
        self._total, self._correct = self._total + result.total, self._correct + (result.correct or 0)
        self._counted += self._loss.n_counted(targets)
        self._rows += rows

    def report(self) -> EvaluateReport:
        """Return the report on all chunks."""
        return EvaluateReport(
            rows=self._rows,
            loss_total=self._total,
            divisor=self._loss.count(self._counted, self._output.features),
            correct=self._correct if self._loss.classifies else None,
            quality=self._quality,
        )
