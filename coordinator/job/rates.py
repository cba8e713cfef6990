"""`training.schedule`: the learning rate as a pure function of the update's number.

[Note: rates] Let k be the number of updates (with `by: epochs`, of whole epochs) before this one, n the number of all,
w the warm-up, r the optimizer's `learning_rate` and r₀ `min_rate`. For k < w the rate is r · (k + 1) / w. After that,
let j = k − w and x = j / (n − w):

    constant      r                                   cosine       r₀ + (r − r₀) · (1 + cos πx) / 2
    linear        r + (r₀ − r) · x                    wsd          r, then linear to r₀ over the last share `decay`
    exponential   max(r₀, r · factorʲ)                step         max(r₀, r · factor^⌊j / every⌋)
    one_cycle     from r / start up to r over the first share `up`, then down to r₀, both as half a cosine

`constant`, `linear`, `cosine`, `exponential`, `step` and `one_cycle` are torch's schedulers of these names.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field

from coordinator.job.base_section import OneOf, Section

_WHOLE = "a whole number, at least 0"


class Rate(Section, ABC):
    """The common part of all schedules of the rate."""

    warmup: int = Field(default=0, ge=0, le=2**62, description=_WHOLE)
    by: Literal["steps", "epochs"] = Field(default="steps", description="steps or epochs")

    @abstractmethod
    def after_warmup(self, rate: float, j: int, n: int) -> float:
        """Return the rate after `j` of `n` units."""


class ConstantRate(Rate):
    """The rate stays constant."""

    def after_warmup(self, rate: float, j: int, n: int) -> float:
        """See Rate."""
        return rate


class _Falling(Rate):
    min_rate: float = Field(default=0.0, ge=0, description="a number, at least 0")


class LinearRate(_Falling):
    """The rate falls linearly."""

    def after_warmup(self, rate: float, j: int, n: int) -> float:
        """See Rate."""
        return rate + (self.min_rate - rate) * _share(j, n)


class CosineRate(_Falling):
    """The rate falls along half a cosine (Loshchilov & Hutter 2017)."""

    def after_warmup(self, rate: float, j: int, n: int) -> float:
        """See Rate."""
        return self.min_rate + (rate - self.min_rate) * (1 + math.cos(math.pi * _share(j, n))) / 2


class WsdRate(_Falling):
    """Warm-up, stable, decay: the rate stays constant, and falls linearly at the end (Hu et al. 2024)."""

    decay: float = Field(default=0.2, gt=0, le=1, description="a share of the updates, above 0 and at most 1")

    def after_warmup(self, rate: float, j: int, n: int) -> float:
        """See Rate."""
        last = max(1, round(self.decay * n))
        return rate + (self.min_rate - rate) * _share(max(0, j - (n - last)), last)


class ExponentialRate(_Falling):
    """The rate is multiplied by `factor` after each unit."""

    factor: float = Field(gt=0, le=1, description="a number above 0, at most 1")

    def after_warmup(self, rate: float, j: int, n: int) -> float:
        """See Rate."""
        return float(max(self.min_rate, rate * self.factor**j))


class StepRate(_Falling):
    """The rate is multiplied by `factor` after every `every` units."""

    factor: float = Field(default=0.1, gt=0, le=1, description="a number above 0, at most 1")
    every: int = Field(ge=1, le=2**62, description="a whole number, at least 1")

    def after_warmup(self, rate: float, j: int, n: int) -> float:
        """See Rate."""
        return float(max(self.min_rate, rate * self.factor ** (j // self.every)))


class OneCycleRate(Rate):
    """The rate rises, then falls (Smith & Topin 2019), as in torch.optim.lr_scheduler.OneCycleLR with cosines."""

    up: float = Field(default=0.3, gt=0, lt=1, description="a share of the updates between 0 and 1")
    start: float = Field(default=25.0, ge=1, description="the divisor of the rate at the start, at least 1")
    min_rate: float = Field(default=0.0, ge=0, description="a number, at least 0")

    def after_warmup(self, rate: float, j: int, n: int) -> float:
        """See Rate."""
        top = self.up * n - 1
        if j <= top:
            return _cosine(rate / self.start, rate, j / top if top > 0 else 1.0)
        return _cosine(rate, self.min_rate, min(1.0, (j - top) / max(1e-9, n - 1 - top)))


class ScheduleSection(OneOf):
    """`training.schedule`: one schedule by name; `constant` alone is short for `constant: {}`."""

    constant: ConstantRate | None = None
    linear: LinearRate | None = None
    cosine: CosineRate | None = None
    wsd: WsdRate | None = None
    exponential: ExponentialRate | None = None
    step: StepRate | None = None
    one_cycle: OneCycleRate | None = None

    def warmup_steps(self, steps_per_epoch: int) -> int:
        """Return the number of updates of the warm-up."""
        schedule: Rate = self.chosen
        return schedule.warmup * (1 if schedule.by == "steps" else max(1, steps_per_epoch))

    def document(self) -> dict[str, Any]:
        """Return the section as a job file has it."""
        return {self.kind: self.chosen.model_dump()}

    def rates(self, learning_rate: float, steps: int, steps_per_epoch: int) -> Callable[[int], float]:
        """Return a function that gives the rate of update number `step`, from 1, of `steps` in all; see [Note:
        rates]."""
        schedule: Rate = self.chosen
        unit = 1 if schedule.by == "steps" else max(1, steps_per_epoch)
        total = -(-steps // unit)

        def rate(step: int) -> float:
            k = (step - 1) // unit
            if k < schedule.warmup:
                return learning_rate * (k + 1) / schedule.warmup
            return schedule.after_warmup(learning_rate, k - schedule.warmup, max(1, total - schedule.warmup))

        return rate


def _share(j: int, n: int) -> float:
    return min(1.0, j / n)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
