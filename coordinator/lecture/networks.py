"""The two networks with their numbers. `examples/lecture/` holds the same as files; a test keeps them equal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from coordinator.job.spec import JobSpec, parse_job
from stages.arrays import Array

DEPTH = 4
"""Linear layers of either network: k = 0 … 3, with an activation after each but the last."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LectureNetwork:
    """A network, its parameters and its data, all float64.

    Scalar: every array has the shape (). Matrix: `x` (inputs, rows) and `y` (outputs, rows) hold one sample a
    column; `beta[k]` is (out,) and `omega[k]` (out, in).
    """

    name: Literal["scalar", "matrix"]
    equation: str
    activation: Literal["tanh", "relu"]
    micro_batches: int
    x: Array
    y: Array
    beta: tuple[Array, ...]
    omega: tuple[Array, ...]

    @property
    def rows(self) -> int:
        """The number of samples."""
        return 1 if self.x.ndim == 0 else int(self.x.shape[1])

    @property
    def columns(self) -> tuple[list[str], list[str]]:
        """Names of the inputs and of the targets in the example's .csv."""
        if self.name == "scalar":
            return ["x"], ["y"]
        return [f"x{i + 1}" for i in range(len(self.x))], [f"y{i + 1}" for i in range(len(self.y))]

    def job(self) -> JobSpec:
        """Return the job of `examples/lecture/{name}.yaml`, with the path of its data relative to that folder: one
        layer a stage."""
        layers: list[Any] = []
        for beta in self.beta:
            layers += [{"linear": {"units": beta.size}}, self.activation]
        n_layers = 2 * DEPTH - 1
        inputs, targets = self.columns
        source = f"{self.name}.csv"
        return parse_job(
            {
                "name": f"lecture-{self.name}",
                "seed": 7,
                "precision": "float64",
                "model": {"input": [len(inputs)], "layers": layers[:n_layers], "loss": "sum_of_squares"},
                "data": {"source": source, "target": targets, "scale": "none", "validation": source},
                "training": {
                    "epochs": 20,
                    "batch_size": self.rows,
                    "micro_batches": self.micro_batches,
                    "optimizer": {"sgd": {"learning_rate": 0.02}},
                },
                "pipeline": {"stages": n_layers, "schedule": "1f1b", "partition": [1] * n_layers},
            }
        )

    def parameters(self) -> dict[str, Array]:
        """The parameters under the pipeline's names: `{layer}.weight` (out, in) and `{layer}.bias` (out,)."""
        named: dict[str, Array] = {}
        for k in range(DEPTH):
            beta = self.beta[k].reshape(-1)
            named[f"{2 * k}.weight"] = self.omega[k].reshape(len(beta), -1)
            named[f"{2 * k}.bias"] = beta
        return named


def _arrays(*values: object) -> tuple[Array, ...]:
    return tuple(np.array(value, dtype=np.float64) for value in values)


SCALAR = LectureNetwork(
    name="scalar",
    equation="f = β₃ + ω₃·a[β₂ + ω₂·a[β₁ + ω₁·a[β₀ + ω₀·x]]], ℓ = (f − y)²",
    activation="tanh",
    micro_batches=1,
    x=np.array(0.5),
    y=np.array(1.0),
    beta=_arrays(0.5, 0.5, 1.0, -0.5),
    omega=_arrays(2.0, -1.0, 1.5, 2.0),
)
"""One number in, one out. tanh has a derivative everywhere, so differences work for any values."""

MATRIX = LectureNetwork(
    name="matrix",
    equation="f₀ = β₀ + Ω₀x, h₁ = a[f₀], f₁ = β₁ + Ω₁h₁, …, f₃ = β₃ + Ω₃h₃, ℓ = Σ(f₃ − y)²",
    activation="relu",
    micro_batches=2,
    x=np.array([[1.0, 2.0, -1.0], [2.0, -1.0, 1.0]]),
    y=np.array([[5.0, 3.5, 3.0], [-3.0, -1.5, -1.0]]),
    beta=_arrays([1.0, -0.5, 1.0], [-1.0, 1.0], [1.0, 1.5, 1.0], [0.5, 1.5]),
    omega=_arrays(
        [[1.0, 1.0], [2.0, 1.0], [-1.0, 1.0]],
        [[0.5, 1.0, 0.5], [-1.0, -2.0, 0.5]],
        [[2.0, -1.0], [1.0, -1.0], [-1.0, 1.0]],
        [[1.0, -1.0, 2.0], [-1.0, 1.0, -1.0]],
    ),
)
"""Layers of 2, 3, 2, 3, 2 units, so that a transposed matrix never fits; three samples in two micro-batches.

All values are multiples of a quarter, small enough for pencil and paper. No pre-activation is nearer than 0.5 to the
kink of ReLU, at which a difference is no derivative.
"""

NETWORKS: dict[str, LectureNetwork] = {network.name: network for network in (SCALAR, MATRIX)}
