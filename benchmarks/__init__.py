"""Measurements that a person runs by hand; nothing in the product imports them.

A network is either `layers` times a linear layer of `width` × `width` with a bias, a ReLU between two of them, trained
with the mean squared error by SGD (`Config`), or a GPT trained with cross-entropy by AdamW (`GptConfig`): in float32,
on two worker processes with one BLAS thread each.
"""

from __future__ import annotations

from dataclasses import dataclass

WORKERS = 2
"""The number of worker processes in every measurement."""

LEARNING_RATE = 0.01
MOMENTUM = 0.9
GPT_LEARNING_RATE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One network, and the cut of its batches into micro-batches."""

    width: int
    layers: int
    batch: int
    micro_batches: int

    def __str__(self) -> str:
        return f"{self.width}, {self.layers}, {self.batch}, {self.micro_batches}"

    @property
    def step_flops(self) -> int:
        """Operations of a step's matrix products: forward, input gradient and weight gradient take 2·B·H² a layer
        each."""
        return 6 * self.batch * self.width**2 * self.layers


CONFIGS = (
    Config(width=1024, layers=8, batch=1024, micro_batches=16),
    Config(width=2048, layers=8, batch=512, micro_batches=16),
    Config(width=256, layers=8, batch=512, micro_batches=8),
    Config(width=64, layers=8, batch=256, micro_batches=8),
)
"""The four networks of the table in RESULTS.md."""

VOCABULARY = 65
"""The number of different characters in the text that a GPT is trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GptConfig:
    """A GPT without biases in its linear layers and with an untied head, and the cut of its batches into
    micro-batches."""

    width: int
    heads: int
    tokens: int
    layers: int
    """The number of blocks."""
    batch: int
    micro_batches: int

    def __str__(self) -> str:
        return f"GPT {self.layers} × {self.width}, {self.heads} heads, {self.tokens} tokens, batch {self.batch}"

    @property
    def step_flops(self) -> int:
        """Operations of a step's matrix products, those of attention over all pairs of tokens."""
        linear = self.layers * 12 * self.width**2 + self.width * VOCABULARY
        attention = self.layers * 2 * self.tokens * self.width
        return 6 * self.batch * self.tokens * (linear + attention)


GPT_CONFIGS = (
    GptConfig(width=128, heads=4, tokens=64, layers=4, batch=12, micro_batches=4),
    GptConfig(width=384, heads=6, tokens=256, layers=6, batch=8, micro_batches=4),
    GptConfig(width=768, heads=12, tokens=256, layers=4, batch=4, micro_batches=4),
)
"""The three transformers of the table in RESULTS.md."""

AnyConfig = Config | GptConfig

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
}
"""Return the environment that limits a process's BLAS to one thread; NumPy and torch read it when they are imported."""
