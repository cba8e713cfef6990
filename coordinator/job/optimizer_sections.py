"""`training.optimizer`: one optimizer by name."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from coordinator.job.base_section import OneOf, Section, as_tuple
from stages.spec import AdamSpec, LionSpec, OptimizerSpec, SgdSpec

_Beta = Annotated[float, Field(ge=0, lt=1)]
Betas = Annotated[tuple[_Beta, _Beta], BeforeValidator(as_tuple)]
_BETAS = "a list of two numbers from 0 to below 1, such as [0.9, 0.99]"
_RATE = "a number above 0"


class SgdSection(Section):
    """`training.optimizer.sgd`: the numbers of torch.optim.SGD."""

    learning_rate: float = Field(gt=0, description=_RATE)
    momentum: float = Field(default=0.0, ge=0, lt=1, description="a number from 0 to below 1")
    weight_decay: float = Field(default=0.0, ge=0, description="a number, at least 0")
    nesterov: bool = Field(default=False, description="true or false")

    def spec(self) -> SgdSpec:
        """Return the optimizer as workers receive it."""
        return SgdSpec(**self.model_dump())


class AdamSection(Section):
    """`training.optimizer.adam`: the numbers of torch.optim.Adam."""

    learning_rate: float = Field(gt=0, description=_RATE)
    betas: Betas = Field(default=(0.9, 0.999), description=_BETAS)
    epsilon: float = Field(default=1e-8, gt=0, description="a number above 0")
    weight_decay: float = Field(default=0.0, ge=0, description="a number, at least 0")

    def spec(self) -> AdamSpec:
        """Return the optimizer as workers receive it."""
        return AdamSpec(**self.model_dump(), decoupled=False, decays_vectors=True)


class AdamwSection(Section):
    """`training.optimizer.adamw`: the numbers of torch.optim.AdamW; biases and norms decay only if `decay_vectors`."""

    learning_rate: float = Field(gt=0, description=_RATE)
    betas: Betas = Field(default=(0.9, 0.999), description=_BETAS)
    epsilon: float = Field(default=1e-8, gt=0, description="a number above 0")
    weight_decay: float = Field(default=0.01, ge=0, description="a number, at least 0")
    decay_vectors: bool = Field(default=False, description="true or false")

    def spec(self) -> AdamSpec:
        """Return the optimizer as workers receive it."""
        return AdamSpec(**self.model_dump(exclude={"decay_vectors"}), decays_vectors=self.decay_vectors)


class LionSection(Section):
    """`training.optimizer.lion`: the numbers of Chen et al. 2023; biases and norms decay only if `decay_vectors`."""

    learning_rate: float = Field(gt=0, description=_RATE)
    betas: Betas = Field(default=(0.9, 0.99), description=_BETAS)
    weight_decay: float = Field(default=0.0, ge=0, description="a number, at least 0")
    decay_vectors: bool = Field(default=False, description="true or false")

    def spec(self) -> LionSpec:
        """Return the optimizer as workers receive it."""
        return LionSpec(**self.model_dump(exclude={"decay_vectors"}), decays_vectors=self.decay_vectors)


class OptimizerSection(OneOf):
    """`training.optimizer`: one optimizer by name."""

    name_suffices = False

    sgd: SgdSection | None = None
    adam: AdamSection | None = None
    adamw: AdamwSection | None = None
    lion: LionSection | None = None

    def spec(self) -> OptimizerSpec:
        """Return the optimizer as workers receive it."""
        chosen: SgdSection | AdamSection | AdamwSection | LionSection = self.chosen
        return chosen.spec()

    def document(self) -> dict[str, Any]:
        """Return the section as a job file has it."""
        return {self.kind: self.chosen.model_dump()}


OPTIMIZERS: tuple[str, ...] = tuple(OptimizerSection.model_fields)
"""The names of the optimizers."""
