"""Watches a training's steps and evaluations for signs that the network learns nothing."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from statistics import fmean

from coordinator.learning.training_warnings import (
    Evaluated,
    Losses,
    dead_units,
    exploding_gradients,
    loss_jump,
    loss_of_constant,
    overfitting,
    vanishes,
    vanishing_gradients,
)
from coordinator.learning.warning import LearningWarning
from coordinator.train.rows import EvalRow, TrainedStep
from stages.network import name_order

_LEAST_STEPS, _MOST_STEPS = 100, 2000
"""The losses of an epoch are judged once it has so many steps, and after so many even if it goes on."""
_LEAST_AT_END = 20
_JUDGED, _BEFORE = 10, 32
_ROWS_OF_A_JUMP = 16
"""The loss of fewer rows may be large by chance: of smaller batches, several steps are looked at together."""
_LOOK_EVERY, _LOOKS = 10, 5
"""The layers' norms are looked at every _LOOK_EVERY steps; _LOOKS in succession decide."""


class LearningWatch:
    """Takes rows in order and yields warnings, each kind once. `constant` is the loss per row of the best constant
    answer, None if that is not known."""

    def __init__(self, constant: float | None) -> None:
        self._constant = constant
        self._given: set[str] = set()
        self._losses: deque[float] = deque(maxlen=_MOST_STEPS)
        self._unjudged = 0  # steps since the last judgement of losses
        self._epoch = self._step = self._vanishing = 0
        self._first_loss: float | None = None
        self._first_norms: list[float] = []
        self._norms: deque[float] = deque(maxlen=_JUDGED)
        self._since_evaluation: list[float] = [0.0, 0.0]  # losses times rows, rows
        self._evaluations: list[Evaluated] = []

    def step(self, row: TrainedStep) -> Iterator[LearningWarning]:
        """Take in a step."""
        loss = row.loss_per_row
        if row.epoch != self._epoch:
            yield from self._judge_losses(_LEAST_STEPS)
        self._epoch, self._step = row.epoch, row.step
        if self._first_loss is None:
            self._first_loss = loss
        self._losses.append(loss)
        start = max(self._first_loss, self._constant or 0.0)
        if "loss_jump" not in self._given and loss > start:
            lately = min(_BEFORE, -(-_ROWS_OF_A_JUMP // max(1, row.samples)))
            losses = self._last_losses(_BEFORE + lately)
            yield from self._new(loss_jump(fmean(losses[-lately:]), losses[:-lately], start, row.step))
        self._unjudged += 1
        if self._unjudged >= _MOST_STEPS:
            yield from self._judge_losses(_LEAST_STEPS)
        self._since_evaluation[0] += loss * row.samples
        self._since_evaluation[1] += row.samples
        yield from self._look_at_norms(row)

    def evaluation(self, row: EvalRow) -> None:
        """Take in an evaluation."""
        total, rows = self._since_evaluation
        if rows:
            self._evaluations.append(Evaluated(row.step, row.loss_per_row, total / rows))
        self._since_evaluation = [0.0, 0.0]

    def end(self) -> Iterator[LearningWarning]:
        """Take in that the training has ended, at its last step or before."""
        yield from self._judge_losses(_LEAST_AT_END)
        yield from self._new(overfitting(self._evaluations, self._constant))

    def _new(self, warning: LearningWarning | None) -> Iterator[LearningWarning]:
        if warning is not None and warning.code not in self._given:
            self._given.add(warning.code)
            yield warning

    def _last_losses(self, most: int) -> list[float]:
        return list(islice(reversed(self._losses), most))[::-1]

    def _judge_losses(self, least: int) -> Iterator[LearningWarning]:
        """Judge the losses since the last judgement; at the end of a short rest, those before it too."""
        if len(self._losses) < least or (least == _LEAST_STEPS and self._unjudged < least):
            return
        values = self._last_losses(max(self._unjudged, _LEAST_STEPS))
        self._unjudged = 0
        if not self._given.isdisjoint(("loss_jump", "exploding_gradients")):
            return  # these say why
        lowest = min((one.validation for one in self._evaluations), default=None)
        yield from self._new(loss_of_constant(Losses(values, self._step, lowest), self._constant))

    def _look_at_norms(self, row: TrainedStep) -> Iterator[LearningWarning]:
        if dead := [one for report in row.reports if report.dead for one in report.dead]:
            yield from self._new(dead_units(dead, row.step))
        self._norms.append(row.grad_norm)
        if len(self._first_norms) < _JUDGED:
            self._first_norms.append(row.grad_norm)
        elif row.grad_norm > 100 * max(self._first_norms) and "exploding_gradients" not in self._given:
            losses = self._first_loss or 0.0, fmean(self._last_losses(_JUDGED))
            yield from self._new(exploding_gradients(self._first_norms, self._norms, row.step, losses))
        if row.step % _LOOK_EVERY or not self._given.isdisjoint(("dead_units", "vanishing_gradients")):
            return
        squares = {name: value for report in row.reports for name, value in report.squared_norms.items()}
        layers = _layers(tuple(squares))
        norms = [math.sqrt(sum(squares[name] for name in names)) for _, names in layers]
        self._vanishing = self._vanishing + 1 if vanishes(norms) else 0
        if self._vanishing >= _LOOKS:
            yield from self._new(vanishing_gradients([layer for layer, _ in layers], norms, row.step))


@lru_cache(maxsize=16)
def _layers(names: tuple[str, ...]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the operations that have these parameters, in order, each with its parameters."""
    found: dict[str, list[str]] = {}
    for name in sorted(names, key=name_order):
        found.setdefault(name.rpartition(".")[0], []).append(name)
    return tuple((layer, tuple(own)) for layer, own in found.items())
