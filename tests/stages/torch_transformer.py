"""Transformers made of torch's modules, with the names of nested torch.nn.Sequential. Torch is imported only if
needed."""

from __future__ import annotations

import math
from typing import Any

from stages.layers import LayerSpec
from stages.spec import ModelSpec
from tests.stages.torch_case import torch_layer


def torch_network(model: ModelSpec) -> Any:
    """Return the network of `model` as a module: rows of tokens in, (rows, positions, outputs) out."""
    return _sequential(model.layers, model.input_shape[0], model.vocabulary)[0]


def _sequential(layers: tuple[LayerSpec, ...], positions: int, features: int, *, residual: bool = False) -> Any:
    """Return a module of these layers, and the number of its output features."""
    from torch import nn

    class Residual(nn.Sequential):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return x + super().forward(x)

    modules = []
    for spec in layers:
        module, features = _module(spec, positions, features)
        modules.append(module)
    return (Residual if residual else nn.Sequential)(*modules), features


def _module(spec: LayerSpec, positions: int, features: int) -> Any:
    from torch import nn

    options = spec.options
    match spec.kind:
        case "embedding":
            return nn.Embedding(features, options.units), options.units
        case "positions":
            return _positions(positions, features), features
        case "linear":
            return nn.Linear(features, options.units, bias=options.bias), options.units
        case "attention":
            return _attention(spec, features), features
        case "swiglu":
            return torch_layer(spec, features), features // 2
        case "dropout":
            return nn.Identity(), features
        case "residual" | "sequential":
            return _sequential(options.layers, positions, features, residual=spec.kind == "residual")
        case "repeat" | "transformer":
            from stages.layers import KINDS
            from stages.shapes import Shape

            expand = KINDS[spec.kind].expand
            assert expand is not None
            return _sequential(tuple(expand(options, Shape(features, positions))), positions, features)
    return torch_layer(spec, features), features


def _positions(positions: int, features: int) -> Any:
    import torch
    from torch import nn

    class Positions(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(positions, features))

        def forward(self, x: Any) -> Any:
            return x + self.weight

    return Positions()


def _attention(spec: LayerSpec, features: int) -> Any:
    """Projection, attention by the formula, projection: entries 0 and 2 have parameters."""
    import torch
    from torch import nn

    options = spec.options
    heads, groups, width = options.heads, options.kv_heads or options.heads, features // options.heads

    class Attention(nn.Sequential):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            rows, t, _ = x.shape
            q, k, v = self[0](x).split([features, groups * width, groups * width], dim=-1)
            q, k, v = (part.reshape(rows, t, -1, width).transpose(1, 2) for part in (q, k, v))
            if options.rotary:
                q, k = _turned(q), _turned(k)
            k, v = (part.repeat_interleave(heads // groups, dim=1) for part in (k, v))
            scores = q @ k.transpose(-1, -2) / math.sqrt(width)
            if options.causal:
                scores = scores.masked_fill(torch.triu(torch.ones(t, t, dtype=torch.bool), 1), -torch.inf)
            return self[2]((torch.softmax(scores, -1) @ v).transpose(1, 2).reshape(rows, t, features))

    projected = features + 2 * groups * width
    return Attention(
        nn.Linear(features, projected, bias=options.bias),
        nn.Identity(),
        nn.Linear(features, features, bias=options.bias),
    )


def _turned(a: Any) -> Any:
    import torch

    width, t, wide = a.shape[-1], a.shape[-2], torch.float64
    angles = torch.arange(t, dtype=wide)[:, None] * 10000.0 ** (-torch.arange(0, width, 2, dtype=wide) / width)
    cos, sin = angles.cos(), angles.sin()
    first, second = a[..., : width // 2], a[..., width // 2 :]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
