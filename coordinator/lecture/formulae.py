"""The formulae derived by hand, and finite differences. Nothing here uses the pipeline's layers or losses.

Values go by their symbols: "f₀", "h₁", "ℓ", "∂ℓ/∂f₃", "∂ℓ/∂Ω₀", …
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from coordinator.lecture.networks import DEPTH, LectureNetwork
from stages.arrays import Array

Values = dict[str, Array]

_STEP = 2.0**-7
"""The widest step of the differences: a power of two, so that x ± step is exact for the numbers of the examples."""


def symbol(letter: str, k: int) -> str:
    """`symbol("f", 2)` is "f₂"."""
    return letter + "₀₁₂₃"[k]


def slope(letter: str, k: int) -> str:
    """`slope("f", 2)` is "∂ℓ/∂f₂"."""
    return f"∂ℓ/∂{symbol(letter, k)}"


def weight_letter(network: LectureNetwork) -> str:
    """Return ω if weights are numbers, Ω if they are matrices."""
    return "ω" if network.x.ndim == 0 else "Ω"


def forward_values(network: LectureNetwork, replaced: Mapping[str, Array] | None = None) -> Values:
    """Return f₀, h₁, f₁, …, f₃, ℓ, in the order of their computation.

    A value or parameter in `replaced` is used instead of the computed one, and the rest of the network follows from it.
    """
    given, values = replaced or {}, Values()
    h = network.x
    for k in range(DEPTH):
        if k:
            h = values[symbol("h", k)] = given.get(symbol("h", k), activate(network, values[symbol("f", k - 1)]))
        beta = given.get(symbol("β", k), network.beta[k])
        omega = given.get(symbol(weight_letter(network), k), network.omega[k])
        f = beta + omega * h if h.ndim == 0 else beta[:, None] + omega @ h
        values[symbol("f", k)] = given.get(symbol("f", k), f)
    values["ℓ"] = np.sum(np.square(values["f₃"] - network.y))
    return values


def activate(network: LectureNetwork, f: Array) -> Array:
    """a[f]: tanh as (eᶠ − e⁻ᶠ)/(eᶠ + e⁻ᶠ); ReLU as f where f > 0, else 0."""
    if network.activation == "relu":
        return np.where(f > 0, f, 0.0)
    return np.asarray((np.exp(f) - np.exp(-f)) / (np.exp(f) + np.exp(-f)))


def activation_slope(network: LectureNetwork, f: Array) -> Array:
    """a′[f]: of tanh 1/cosh² f; of ReLU I[f > 0]."""
    if network.activation == "relu":
        return np.where(f > 0, 1.0, 0.0)
    return np.asarray(1 / np.cosh(f) ** 2)


def scalar_slopes(network: LectureNetwork, values: Values) -> Values:
    """∂ℓ/∂ of every value and parameter of the scalar network, from the last to the first, by the chain rule."""
    slopes: Values = {"∂ℓ/∂f₃": 2 * (values["f₃"] - network.y)}
    for k in reversed(range(DEPTH)):
        df = slopes[slope("f", k)]
        slopes[slope("β", k)] = df
        slopes[slope("ω", k)] = df * (values[symbol("h", k)] if k else network.x)
        if k:
            slopes[slope("h", k)] = network.omega[k] * df
            da = activation_slope(network, values[symbol("f", k - 1)])
            slopes[slope("f", k - 1)] = da * slopes[slope("h", k)]
    return slopes


def matrix_slopes(network: LectureNetwork, values: Values) -> Values:
    """Like `scalar_slopes`, for the matrix network and all samples: a parameter's derivative is a sum over the
    columns."""
    slopes: Values = {"∂ℓ/∂f₃": 2 * (values["f₃"] - network.y)}
    for k in reversed(range(DEPTH)):
        df = slopes[slope("f", k)]
        slopes[slope("β", k)] = df.sum(axis=1)
        slopes[slope("Ω", k)] = df @ (values[symbol("h", k)] if k else network.x).T
        if k:
            slopes[slope("h", k)] = network.omega[k].T @ df
            da = activation_slope(network, values[symbol("f", k - 1)])
            slopes[slope("f", k - 1)] = da * slopes[slope("h", k)]
    return slopes


def by_hand(network: LectureNetwork) -> Values:
    """Every value, then every derivative, in the order of their computation."""
    values = forward_values(network)
    slopes = scalar_slopes if network.x.ndim == 0 else matrix_slopes
    return values | slopes(network, values)


def finite_difference(network: LectureNetwork, letter: str, k: int) -> Array:
    """∂ℓ/∂(f, h, β, ω or Ω of layer k): each entry itself is moved, and the rest of the network follows from it."""
    name = symbol(letter, k)
    parameters = {"β": network.beta, weight_letter(network): network.omega}
    base = parameters[letter][k] if letter in parameters else forward_values(network)[name]
    result = np.empty_like(base)
    for place in np.ndindex(base.shape):

        def loss(offset: float, place: tuple[int, ...] = place) -> float:
            moved = np.array(base)
            moved[place] += offset
            return float(forward_values(network, {name: moved})["ℓ"])

        result[place] = derivative(loss)
    return result


def derivative(function: Callable[[float], float]) -> float:
    """function′(0) by central differences and Richardson's extrapolation, truncated at the sixth power of the step.

    D(s) = (function(s) − function(−s)) / 2s is off by c₂s² + c₄s⁴ + …. From D at s, s/2 and s/4 the first two terms
    are eliminated. So the step can stay wide, and the difference of two nearly equal numbers loses few digits: a
    plain central difference is exact to about 1e-10 at best, this one to about 1e-12.
    """
    wide, middle, narrow = ((function(step) - function(-step)) / (2 * step) for step in (_STEP, _STEP / 2, _STEP / 4))
    without_second = (4 * middle - wide) / 3, (4 * narrow - middle) / 3
    return (16 * without_second[1] - without_second[0]) / 15
