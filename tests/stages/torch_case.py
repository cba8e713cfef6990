"""Layers, losses and optimizers as torch has them, for the goldens. Torch is imported when it is asked."""

from __future__ import annotations

from typing import Any

from stages.layers import LayerSpec
from stages.spec import LossKind, SgdSpec


def torch_layer(spec: LayerSpec, n_in: int) -> Any:
    """The module that `spec` names in torch."""
    from torch import nn

    match spec.kind:
        case "linear":
            return nn.Linear(n_in, spec.options.units, bias=spec.options.bias)
        case "leaky_relu":
            return nn.LeakyReLU(spec.options.slope)
        case "flatten":
            return nn.Flatten()
    return {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU}[spec.kind]()


def torch_loss(kind: LossKind) -> Any:
    """The loss that `kind` names in torch, with its defaults where it has one."""
    from torch import nn

    return {
        "cross_entropy": nn.CrossEntropyLoss(),
        "mse": nn.MSELoss(),
        "sum_of_squares": nn.MSELoss(reduction="sum"),
    }[kind]


def torch_sgd(spec: SgdSpec, parameters: Any) -> Any:
    """The optimizer that `spec` describes in torch."""
    import torch

    return torch.optim.SGD(
        parameters,
        lr=spec.learning_rate,
        momentum=spec.momentum,
        weight_decay=spec.weight_decay,
        nesterov=spec.nesterov,
    )
