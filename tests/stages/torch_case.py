"""Torch's layers, losses and optimizers, for the goldens. Torch is imported only when they are needed."""

from __future__ import annotations

from typing import Any

from stages.layers import LayerSpec
from stages.spec import AdamSpec, OptimizerSpec, SgdSpec


def torch_layer(spec: LayerSpec, n_in: int) -> Any:
    """Return torch's module for `spec`."""
    from torch import nn

    match spec.kind:
        case "linear":
            return nn.Linear(n_in, spec.options.units, bias=spec.options.bias)
        case "leaky_relu":
            return nn.LeakyReLU(spec.options.slope)
        case "flatten":
            return nn.Flatten()
        case "layer_norm":
            return nn.LayerNorm(n_in, eps=spec.options.epsilon, bias=spec.options.bias)
        case "rms_norm":
            return nn.RMSNorm(n_in, eps=spec.options.epsilon)
        case "softplus":
            return nn.Softplus(threshold=100)  # above 20, its default threshold, torch drops e^−x
        case "gelu":
            return nn.GELU(approximate=spec.options.approximate)
        case "swiglu":
            return swiglu()
    plain = {
        "relu": nn.ReLU,
        "tanh": nn.Tanh,
        "sigmoid": nn.Sigmoid,
        "silu": nn.SiLU,
    }
    return plain[spec.kind]()


def swiglu() -> Any:
    """silu(first half) · second half of the features."""
    from torch import nn

    class Swiglu(nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            a, b = x.chunk(2, dim=-1)
            return nn.functional.silu(a) * b

    return Swiglu()


def torch_optimizer(spec: OptimizerSpec, matrices: list[Any], vectors: list[Any]) -> Any:
    """Return torch's optimizer for `spec`."""
    import torch

    decay = {"weight_decay": getattr(spec, "weight_decay", 0.0)}
    groups = [{"params": matrices, **decay}, {"params": vectors, **(decay if spec.decays_vectors else {})}]
    if isinstance(spec, SgdSpec):
        return torch.optim.SGD(groups, lr=spec.learning_rate, momentum=spec.momentum, nesterov=spec.nesterov)
    assert isinstance(spec, AdamSpec), "torch has no other"
    kind = torch.optim.AdamW if spec.decoupled else torch.optim.Adam
    groups[1].setdefault("weight_decay", 0.0)
    return kind(groups, lr=spec.learning_rate, betas=spec.betas, eps=spec.epsilon)
