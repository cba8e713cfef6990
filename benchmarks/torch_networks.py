"""The measured networks in torch: stages, a batch, the loss and the optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import GPT_LEARNING_RATE, LEARNING_RATE, VOCABULARY, AnyConfig, Config, GptConfig


class Block(nn.Module):  # type: ignore[misc]  # mypy does not read torch
    """A transformer block with its norms in front, no biases in its linear layers, one product for q, k and v."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (rows, tokens, width) to the same shape."""
        rows, tokens, width = x.shape
        parts = self.qkv(self.norm_1(x)).view(rows, tokens, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        heads = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(heads.transpose(1, 2).reshape(rows, tokens, width))
        return x + self.down(functional.gelu(self.up(self.norm_2(x))))


class Tokens(nn.Module):  # type: ignore[misc]
    """The sum of learned vectors of tokens and of positions."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCABULARY, width), nn.Parameter(torch.randn(tokens, width) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Map (rows, tokens) to (rows, tokens, width)."""
        vectors: Tensor = self.tokens(x) + self.positions
        return vectors


def stage_modules(config: AnyConfig, stage: int, stage_count: int) -> Iterator[nn.Module]:
    """Yield the modules of one of `stage_count` stages. Of a GPT, the first also has the embedding, the last the
    head."""
    first, last = config.layers * stage // stage_count, config.layers * (stage + 1) // stage_count
    if isinstance(config, Config):
        for layer in range(first, last):
            torch.manual_seed(layer)
            yield nn.Linear(config.width, config.width)
            if layer < config.layers - 1:
                yield nn.ReLU()
        return
    torch.manual_seed(stage)
    if stage == 0:
        yield Tokens(config.tokens, config.width)
    for _ in range(first, last):
        yield Block(config.width, config.heads)
    if stage == stage_count - 1:
        yield nn.LayerNorm(config.width)
        yield nn.Linear(config.width, VOCABULARY, bias=False)


def batch(config: AnyConfig) -> tuple[Tensor, Tensor]:
    """Return inputs and targets of one step."""
    torch.manual_seed(config.layers)
    if isinstance(config, GptConfig):
        x, y = torch.randint(0, VOCABULARY, (2, config.batch, config.tokens))
        return x, y
    x, y = torch.randn(2, config.batch, config.width)
    return x, y


def loss_function(config: AnyConfig) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the function of the mean loss of outputs and targets."""
    if isinstance(config, GptConfig):
        return lambda output, target: functional.cross_entropy(output.flatten(0, 1), target.flatten())
    loss: Callable[[Tensor, Tensor], Tensor] = functional.mse_loss
    return loss


def optimizer(config: AnyConfig, parameters: Sequence[Any], momentum: float) -> torch.optim.Optimizer:
    """Return torch's fastest form of the optimizer."""
    if isinstance(config, GptConfig):
        return torch.optim.AdamW(parameters, lr=GPT_LEARNING_RATE, fused=True)
    return torch.optim.SGD(parameters, lr=LEARNING_RATE, momentum=momentum, fused=True)


def whole_network_step(config: AnyConfig, momentum: float) -> Callable[[], None]:
    """Return a training step of the network in this process, with all rows of the batch at once."""
    network = nn.Sequential(*stage_modules(config, 0, 1))
    parameters = list(network.parameters())
    apply, loss, (x, y) = optimizer(config, parameters, momentum), loss_function(config), batch(config)

    def step() -> None:
        loss(network(x), y).backward()
        apply.step()
        apply.zero_grad(set_to_none=True)

    return step
