"""The model and the optimizer as workers receive them: plain frozen data, validated by the coordinator."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from stages.layers.sequential import LayerSpec
from stages.losses import Loss, LossSpec, build_loss
from stages.network import InitSpec, Network, build_network
from stages.shapes import Shape, input_shape

__all__ = ["AdamSpec", "InitSpec", "LionSpec", "LossSpec", "ModelSpec", "OptimizerSpec", "SgdSpec"]

Precision = Literal["float32", "float64"]


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A network: the shape of a sample, the layers (which may contain layers) and the loss (its name, if it has no
    options). If `vocabulary` is above 0, a sample is `input_shape[0]` tokens. No update changes the parameters that
    `freeze` names by their paths."""

    input_shape: tuple[int, ...]
    layers: tuple[LayerSpec, ...]
    loss: LossSpec | str
    precision: Precision = "float32"
    seed: int = 0
    vocabulary: int = 0
    init: InitSpec | None = None
    freeze: tuple[str, ...] = ()

    @property
    def input(self) -> Shape:
        """The shape of the first layer's input."""
        return input_shape(self.input_shape, self.vocabulary)

    @cached_property
    def network(self) -> Network:
        """The layers as a flat list of operations. Raises LayerError if they do not fit each other."""
        return build_network(self.input, self.layers, self.init, self.freeze)

    @cached_property
    def loss_function(self) -> Loss:
        """The loss that `loss` names."""
        return build_loss(self.loss)

    @property
    def itemsize(self) -> int:
        """Bytes of one number."""
        return 4 if self.precision == "float32" else 8

    def __getstate__(self) -> dict[str, Any]:
        """Leave out network and loss: the receiver builds them again."""
        return {key: value for key, value in self.__dict__.items() if key not in ("network", "loss_function")}


@dataclass(frozen=True, slots=True, kw_only=True)
class SgdSpec:
    """Stochastic gradient descent as torch.optim.SGD defines it (dampening 0)."""

    learning_rate: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    decays_vectors: bool = True

    @property
    def state(self) -> tuple[str, ...]:
        """Names of the optimizer's state vectors, each as large as the parameters."""
        return ("momentum",) if self.momentum else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamSpec:
    """Adam, or with `decoupled` weight decay AdamW, as in torch.optim. Weight decay applies only to matrices unless
    `decays_vectors` is set."""

    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = True
    decays_vectors: bool = False

    @property
    def state(self) -> tuple[str, ...]:
        """See SgdSpec."""
        return ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True, kw_only=True)
class LionSpec:
    """Lion (Chen et al. 2023)."""

    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    decays_vectors: bool = False

    @property
    def state(self) -> tuple[str, ...]:
        """See SgdSpec."""
        return ("exp_avg",)


OptimizerSpec = SgdSpec | AdamSpec | LionSpec
