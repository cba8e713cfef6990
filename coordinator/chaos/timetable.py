"""What a job does in each of its steps: the points at which a fault can strike."""

from __future__ import annotations

from coordinator.plan.blueprint import Blueprint
from stages.actions import Program
from stages.data import batch_bounds, micro_batch_sizes


class Timetable:
    """The steps of a job with so many rows."""

    def __init__(self, blueprint: Blueprint, train_rows: int, validation_rows: int) -> None:
        self._blueprint, self._validation_rows = blueprint, validation_rows
        training = blueprint.spec.training
        self._batches, self._micro_batches = batch_bounds(train_rows, training.batch_size), training.micro_batches
        self._evaluate_every = training.evaluate_every or len(self._batches)
        self.steps_total = training.n_steps(len(self._batches))

    def program_of(self, step: int | None) -> Program:
        """Return the program of a step, from 1; for None and for a step that the job does not have, of a full step."""
        if step is None or not 1 <= step <= self.steps_total:
            return self._blueprint.program
        first, last = self._batches[(step - 1) % len(self._batches)]
        return self._blueprint.programs[len(micro_batch_sizes(last - first, self._micro_batches))]

    def is_evaluated(self, step: int) -> bool:
        """Whether an evaluation follows a step."""
        return self._validation_rows > 0 and (step % self._evaluate_every == 0 or step == self.steps_total)

    def evaluation_after(self, step: int) -> int | None:
        """Return the first step from this one on that an evaluation follows; None if there is none."""
        return next((one for one in range(step, self.steps_total + 1) if self.is_evaluated(one)), None)
