"""The instruction set of workers: the actions that a schedule consists of, printed and parsed as text.

An action is written `2F0`: stage 2, forward, micro-batch 0. The letters are those of
torch.distributed.pipelining, so that schedules can be exchanged:

    F  forward
    I  backward for the input: ∂ℓ/∂input, sent on at once
    W  backward for the weights: ∂ℓ/∂parameters, from what F and I kept
    B  both: I, then W
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property


class Kind(StrEnum):
    """What an action does."""

    FORWARD = "F"
    BACKWARD_INPUT = "I"
    BACKWARD_WEIGHT = "W"
    BACKWARD = "B"


_TEXT = re.compile(r"([0-9]+)([FIWB])([0-9]+)")


@dataclass(frozen=True, slots=True, order=True)
class Action:
    """One thing that a worker does. Stages and micro-batches count from 0."""

    stage: int
    kind: Kind
    micro_batch: int

    def __str__(self) -> str:
        return f"{self.stage}{self.kind}{self.micro_batch}"

    @staticmethod
    def parse(text: str) -> Action:
        """Parse an action such as `2F0`. Raises ValueError for any other text."""
        match = _TEXT.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is not an action; one looks like 2F0, 2B0, 2I0 or 2W0")
        return Action(int(match[1]), Kind(match[2]), int(match[3]))


Lane = tuple[Action, ...]
"""One worker's actions of a step, in order."""


@dataclass(frozen=True)
class Program:
    """All lanes of one step: `lanes[w]` is what worker `w` does. Which worker holds which stage follows from them.

    `pairs` are the forwards that a schedule overlaps with the B right after them. Workers here do one action after the
    other; torch may overlap the two, so files keep them together.
    """

    name: str
    n_stages: int
    n_micro_batches: int
    lanes: tuple[Lane, ...]
    pairs: frozenset[Action] = frozenset()

    @property
    def n_workers(self) -> int:
        """The number of workers: one for each lane."""
        return len(self.lanes)

    @cached_property
    def placement(self) -> tuple[int, ...]:
        """`placement[s]` is the worker that holds stage `s`. Meaningful only for a program that passed
        `replay.check`."""
        held = {action.stage: worker for worker, lane in enumerate(self.lanes) for action in lane}
        return tuple(held[stage] for stage in range(self.n_stages))
