"""Measurements that a person runs by hand; nothing in the product imports them.

Every network here is `layers` times a linear layer of `width` × `width` with a bias, a ReLU between two of them,
trained in float32 with the mean squared error by SGD, on two worker processes with one BLAS thread each.
"""

from __future__ import annotations

from dataclasses import dataclass

WORKERS = 2
"""The number of worker processes in every measurement."""

LEARNING_RATE = 0.01
MOMENTUM = 0.9


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

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
}
"""Return the environment that limits a process's BLAS to one thread; NumPy and torch read it when they are imported."""
