"""GELU in its exact form and in the tanh form, with their derivatives.

[Note: exact GELU in float32] With t = |x|, Φ(−t) = R(t) · exp(−t²/2), where R(t) = P(t) / S(t) is a rational minimax
approximation on 0 ≤ t ≤ 15, beyond which Φ(−t) is 0 in float32. All coefficients are positive, so nothing cancels, and
x · Φ(x) = max(x, 0) − t · Φ(−t) keeps its relative accuracy in the negative tail, where 1 + erf loses it. The errors
over all float32 values of x (`python -m benchmarks.gelu`) are at most:

    value                  2 units in the last place, or 1e-7
    derivative             2e-7
    value, −13 ≤ x < 0     relative 6e-7 + x² · 6e-8, because −x²/2 is rounded before exp

All is computed in blocks that stay in the cache. The result for an element does not depend on its place.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stages.arrays import CACHE_NUMBERS, Array
from stages.layers.activations import Activation
from stages.layers.base import Extra, LayerKind, Moment
from stages.layers.options import option
from stages.shapes import Shape

_Float32 = NDArray[np.float32]


def _constant(value: float) -> _Float32:
    """Return a float32 that ufuncs need not convert at each call."""
    return np.array(value, dtype=np.float32)


# R = P / S as polynomials in h = t/2, the highest power first; S begins with h⁴ itself
_COEFFICIENTS_OF_P = 0.1994092543386781, 0.7477256773673641, 1.1802368599285684, 0.8608508998958521
_TWICE_P = tuple(_constant(2 * value) for value in _COEFFICIENTS_OF_P)
_S = tuple(map(_constant, (3.7433056100181425, 6.203338470672641, 5.10789947990384, 1.7217019021829612)))
_LARGEST_H = _constant(7.5)
_HALF, _MINUS_2 = map(_constant, (0.5, -2.0))
_FOUR_OVER_ROOT_2_PI = _constant(4 / math.sqrt(2 * math.pi))
_SIGN_BIT = np.array(-(2**31), dtype=np.int32)
_HALF_BITS = np.array(0x3F000000, dtype=np.int32)  # 0.5 in float32; with a sign bit, ±0.5

_TANH_SCALE = 2 * math.sqrt(2 / math.pi)
_TANH_CUBE = 0.044715
_TANH_LARGEST = {"f": 10.0, "d": 20.0}  # beyond, the derivative is 0 or 1, and e^−2u not yet infinite


_of_thread = threading.local()  # scratch arrays, kept for each thread because threads of one process may run stages


@dataclass(frozen=True, slots=True, kw_only=True)
class GeluOptions:
    """`approximate`: none is z · Φ(z), tanh the form with a hyperbolic tangent, as torch.nn.GELU names them."""

    approximate: Literal["none", "tanh"] = option("none or tanh", default="none")


class _Gelu(Activation):
    """Base of both forms. Forward keeps the slope instead of x: it has computed most of the slope for the output."""

    weight_gain = 2.0
    input_gradient_reads = frozenset()
    pass_counts = (13.0, 0.5)

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.extras = (Extra(shape.features),)

    def backward_input(self, x: Array, y: Array, extras: Sequence[Array], dy: Array, dx: Array, *_: Any) -> None:
        """∂ℓ/∂x = ∂ℓ/∂y · slope."""
        np.multiply(dy, extras[0], out=dx)


def in_blocks(block: Callable[..., None], n_scratch: int, *arrays: Array, out: Array | Sequence[Array]) -> None:
    """Call `block(*parts, *parts of out, *scratch)` for parts that stay in the cache, until all elements are done.
    `n_scratch` is the number of scratch vectors. Outputs are contiguous and may be among `arrays`."""
    outputs = [array.reshape(-1) for array in ([out] if isinstance(out, np.ndarray) else out)]
    flat = [np.ascontiguousarray(array).reshape(-1) for array in arrays] + outputs
    size = outputs[0].size
    scratch = _scratch(n_scratch, min(size, CACHE_NUMBERS), outputs[0].dtype)
    for a in range(0, size, CACHE_NUMBERS):
        b = min(a + CACHE_NUMBERS, size)
        block(*(array[a:b] for array in flat), *(row[: b - a] for row in scratch))


def _phi(x: Array) -> Array:
    """Φ(x) by SciPy, which only the first call loads."""
    from scipy.special import ndtr

    distribution: Array = ndtr(x)
    return distribution


def _scratch(n: int, size: int, dtype: np.dtype[Any]) -> Sequence[Array]:
    kept: Array | None = getattr(_of_thread, dtype.char, None)
    if kept is None or len(kept) < n or kept.shape[1] < size:
        kept = np.empty((max(n, 5), size), dtype=dtype)
        setattr(_of_thread, dtype.char, kept)
    return list(kept[:n])


class Gelu(_Gelu):
    """a[z] = z · Φ(z), Φ the normal distribution function (Hendrycks & Gimpel 2016, the exact form).

    In float64 by SciPy's Φ; in float32 see [Note: exact GELU in float32].
    """

    def forward(self, x: Array, y: Array, extras: Sequence[Array], p: Any, at: Moment, *_: Any) -> None:
        """See Layer. The slope is Φ(x) + x · φ(x), φ the normal density."""
        if x.dtype == np.float32:
            in_blocks(_forward_and_slope if at.training else _forward, 5, x, out=(y, extras[0]))
            return
        slope, distribution = extras[0], _phi(x)
        if at.training:
            np.multiply(x, x, out=slope)
            np.multiply(slope, -0.5, out=slope)
            np.exp(slope, out=slope)
            np.multiply(slope, 1 / math.sqrt(2 * math.pi), out=slope)
            np.multiply(slope, x, out=slope)
            np.add(slope, distribution, out=slope)
        np.multiply(x, distribution, out=y)


def _forward(x: Any, y: Any, _: Any, relu: Any, h: Any, r: Any, s: Any, product: Any) -> None:
    """y ← max(x, 0) − |x| · Φ(−|x|)."""
    np.multiply(x, _HALF, out=relu)
    np.abs(relu, out=h)
    np.add(relu, h, out=relu)
    _ratio_and_exp(h, r, s)
    np.multiply(r, h, out=product)
    np.multiply(product, s, out=product)
    np.subtract(relu, product, out=y)


def _forward_and_slope(x: Any, y: Any, slope: Any, relu: Any, h: Any, r: Any, s: Any, product: Any) -> None:
    """y as `_forward`, and slope ← Φ(x) + x·φ(x). With B = (R − t/√(2π)) · exp(−t²/2) the slope is B if x < 0, else
    1 − B; the sign bit of x chooses."""
    bits = slope.view(np.int32)
    np.bitwise_and(x.view(np.int32), _SIGN_BIT, out=bits)  # before y: it may be x itself
    np.bitwise_or(bits, _HALF_BITS, out=bits)  # slope: ±1/2
    _forward(x, y, slope, relu, h, r, s, product)
    np.multiply(h, _FOUR_OVER_ROOT_2_PI, out=h)
    np.subtract(h, r, out=r)
    np.multiply(r, slope, out=r)
    np.multiply(r, s, out=r)  # B or −B
    np.add(slope, _HALF, out=slope)  # 1 or 0
    np.add(r, slope, out=slope)


def _ratio_and_exp(h: Any, r: Any, s: Any) -> None:
    """From h = |x|/2: h ← h, at most 7.5; r ← 2R; s ← exp(−2h²)."""
    if not h.max() <= _LARGEST_H:  # or NaN; to look is quicker than `minimum` with a number
        np.minimum(h, _LARGEST_H, out=h)
    np.multiply(h, _TWICE_P[0], out=r)
    for coefficient in _TWICE_P[1:-1]:
        np.add(r, coefficient, out=r)
        np.multiply(r, h, out=r)
    np.add(r, _TWICE_P[-1], out=r)
    np.add(h, _S[0], out=s)
    for coefficient in _S[1:]:
        np.multiply(s, h, out=s)
        np.add(s, coefficient, out=s)
    np.divide(r, s, out=r)
    np.square(h, out=s)
    np.multiply(s, _MINUS_2, out=s)
    np.exp(s, out=s)


class GeluTanh(_Gelu):
    """a[z] = z/2 · (1 + tanh(√(2/π) (z + 0.044715 z³))), as torch.nn.GELU(approximate="tanh").

    Computed as z / (1 + e^−2u), u the argument of tanh: the same, without cancellation in the negative tail. In
    float32 within 2 units in the last place, or 1e-7, of the exact value of this form; the derivative within 3e-7.
    """

    def forward(self, x: Array, y: Array, extras: Sequence[Array], p: Any, at: Moment, *_: Any) -> None:
        """See Layer. With σ = 1 / (1 + e^−2u) the slope is σ + x · σ · (1 − σ) · 2u′."""
        with np.errstate(over="ignore"):  # e^−2u is infinite where the output is −0
            if at.training:
                in_blocks(_tanh_slope, 3, x, out=extras[0])
            in_blocks(_tanh_forward, 1, x, out=y)


def _tanh_forward(x: Any, y: Any, e: Any) -> None:
    np.square(x, out=e)
    np.multiply(e, -_TANH_SCALE * _TANH_CUBE, out=e)
    np.subtract(e, _TANH_SCALE, out=e)
    np.multiply(e, x, out=e)
    np.exp(e, out=e)
    np.add(e, 1, out=e)
    np.divide(x, e, out=y)


def _tanh_slope(x: Any, slope: Any, e: Any, v: Any, d: Any) -> None:
    largest = _TANH_LARGEST[x.dtype.char]
    np.clip(x, -largest, largest, out=v)
    np.square(v, out=d)
    np.multiply(d, -_TANH_SCALE * _TANH_CUBE, out=e)
    np.subtract(e, _TANH_SCALE, out=e)
    np.multiply(e, v, out=e)
    np.exp(e, out=e)  # e^−2u
    np.multiply(d, 3 * _TANH_SCALE * _TANH_CUBE, out=d)
    np.add(d, _TANH_SCALE, out=d)
    np.multiply(d, v, out=d)  # x · 2u′
    np.add(e, 1, out=v)
    np.divide(1, v, out=v)  # σ
    np.multiply(e, v, out=e)  # 1 − σ
    np.multiply(d, e, out=d)
    np.add(d, 1, out=d)
    np.multiply(d, v, out=slope)


GELU = LayerKind(
    name="gelu",
    options=GeluOptions,
    build=lambda options, shape, path: (GeluTanh if options.approximate == "tanh" else Gelu)(shape),
)
