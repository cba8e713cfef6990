"""`training.log_every`: joins several steps into one row, which keeps their sums and means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from coordinator.timing.epoch_means import weight
from coordinator.train.rows import TrainedStep


class RowLog:
    """Joins steps of an epoch. A row ends at each step whose number is a multiple of `every`, and at the end of an
    epoch."""

    def __init__(self, every: int, open_row: Sequence[Mapping[str, Any]] = ()) -> None:
        """Begin with the steps of an incomplete row, as `StepRow.as_dict` gives them."""
        self._every = every
        self._steps = [TrainedStep(**{key: row[key] for key in row if key != "kind"}) for row in open_row]

    @property
    def open_row(self) -> Sequence[TrainedStep]:
        """The steps of the row that is not complete."""
        return tuple(self._steps)

    def take(self, row: TrainedStep) -> Iterator[TrainedStep]:
        """Take in a step. Yield the rows that are complete now."""
        if self._steps and self._steps[-1].epoch != row.epoch:
            yield from self.rest()
        self._steps.append(row)
        if row.step % self._every == 0:
            yield from self.rest()

    def rest(self) -> Iterator[TrainedStep]:
        """Yield the row of the steps that are in no row yet, if there are any. For evaluations, and for the end."""
        steps, self._steps = self._steps, []
        if steps:
            yield steps[0] if len(steps) == 1 else joined(steps)


def joined(steps: list[TrainedStep]) -> TrainedStep:
    """Return the row of several steps of one epoch. Samples and seconds are sums, and so is a loss that is a sum. Other
    losses and the accuracy are means with the steps' weights, the bubble is a mean over time. All other figures are
    the last step's, those of memory the last sample's."""
    last, seconds = steps[-1], sum(step.seconds for step in steps)
    weights = [weight(step.samples, step.counted) for step in steps]
    all_of_them = max(1, sum(weights))
    loss = sum(step.loss * (1 if step.summed else w) for step, w in zip(steps, weights, strict=True))
    right = sum((step.accuracy or 0.0) * w for step, w in zip(steps, weights, strict=True))
    memory = next((step for step in reversed(steps) if step.memory_most is not None), last)
    return replace(
        last,
        steps=len(steps),
        samples=sum(step.samples for step in steps),
        loss=loss if last.summed else loss / all_of_them,
        seconds=seconds,
        bubble=sum(step.bubble * step.seconds for step in steps) / seconds,
        accuracy=None if last.accuracy is None else right / all_of_them,
        counted=None if last.counted is None else sum(weights),
        memory_most=memory.memory_most,
        memory_mean=memory.memory_mean,
        reports=memory.reports,
    )
