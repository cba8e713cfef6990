"""The declarations and methods of a layer. A layer holds no arrays and does not know its stage.

Arrays are (features, columns), see stages.shapes. In a layer's methods, x is its input, y its output, dy and dx
are ∂ℓ/∂y and ∂ℓ/∂x. A stage keeps the arrays that `input_gradient_reads` and `weight_gradient_reads` name.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.arrays import Array
from stages.shapes import Shape

Reads = Literal["x", "y", "dy"]


class LayerProblem(Exception):
    """The reason why a layer cannot be built: one line for the user, shown after the layer's path."""


def wrong_input(must: str, shape: Shape, hint: str = "") -> LayerProblem:
    """Return the problem that a layer's input does not have the shape that it `must` have."""
    return LayerProblem(f"its input must {must}, but has {shape.described}{hint and '; '}{hint}")


class Moment(NamedTuple):
    """The step of a micro-batch and its place in the step, for layers that draw random numbers.

    No backward pass follows unless `training`. `seed` is the model's seed; `first` is the index of the micro-batch's
    first row among the rows of its step.
    """

    training: bool = False
    seed: int = 0
    step: int = 0
    first: int = 0


EVALUATING = Moment()
TRAINING = Moment(training=True)

Call = Callable[[], object]
"""A call with its arguments. A `partial` of a C function is called without a Python frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """How a weight is drawn. Its standard deviation is the first of these that is given: `std` (from the layer's own
    `init`), that of the model's `init`, `default_std`. If none is, it follows from `fan_in` by the lecture's rule."""

    fan_in: int
    std: float | None = None
    default_std: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterSpec:
    """One parameter: drawn at random if it has a `draw`, else `constant` everywhere at first. `tied_to` is the entry of
    `model.layers` that owns the weight."""

    name: str
    shape: tuple[int, ...]
    constant: float = 0.0
    draw: Draw | None = None
    tied_to: int | None = None

    @property
    def numbers(self) -> int:
        """How many numbers the parameter has."""
        return math.prod(self.shape)


class Extra(NamedTuple):
    """An array that forward writes beside the output: `features` numbers a column; kept until the weight gradient if
    `until_weight`, else until the input gradient."""

    features: int
    until_weight: bool = False


@dataclass(slots=True)
class Past:
    """The arrays that a layer keeps of the first `length` positions of a row, to continue the row."""

    length: int = 0
    arrays: dict[str, Array] = field(default_factory=dict)


class Cost(NamedTuple):
    """The cost of a row in F, I and W. `products`: the floating-point operations of matrix products. `elements`: all
    other work, in operations of a product that together take equally long."""

    products: tuple[float, float, float] = (0.0, 0.0, 0.0)
    elements: tuple[float, float, float] = (0.0, 0.0, 0.0)


ELEMENT = 40.0
"""One pass over an element takes about as long as this many operations of a product."""


def passes(numbers: int, forward: float, input_gradient: float, weight_gradient: float = 0.0) -> Cost:
    """Return the cost of element-wise work. F takes as long as `forward` passes over the numbers of a row, I as long as
    `input_gradient` passes and W as long as `weight_gradient` passes.

    The layers' figures are measured for float32 (`python -m benchmarks.layer_costs` compares them), and rounded.
    """
    once = ELEMENT * numbers
    return Cost(elements=(once * forward, once * input_gradient, once * weight_gradient))


class Layer(ABC):
    """One operation of the network on one input (`n_inputs` of them for a sum)."""

    n_inputs: ClassVar[int] = 1
    in_place: ClassVar[bool] = False
    """Whether forward may write over x, and the input gradient over dy."""
    is_identity: bool = False
    """Whether y is x itself, so that nothing is computed, forward or backward."""
    passes_gradient: ClassVar[bool] = False
    """Whether the gradient of each input is dy itself, so that nothing is computed."""
    input_gradient_reads: ClassVar[frozenset[Reads]] = frozenset()
    """Which of x and y the input gradient reads; it always reads dy."""
    weight_gradient_reads: ClassVar[frozenset[Reads]] = frozenset()
    """Which of x and dy the weight gradient reads."""
    weight_gain: ClassVar[float] = 1.0
    """The layer before this one draws its weights with the standard deviation sqrt(weight_gain / fan_in)."""
    is_transparent: ClassVar[bool] = False
    """Whether the layer before this one uses the `weight_gain` of the layer after this one instead."""

    can_die: bool = False
    """Whether a unit (a feature of the output) can stop to learn, because its output passes no gradient for any
    row."""
    draws: ClassVar[bool] = False
    """Whether training draws random numbers, and so reads the micro-batch's place in Moment."""
    ignores_scale: ClassVar[bool] = False
    """Whether inputs that are a hundred times larger give the same output."""
    mixes_positions: ClassVar[bool] = False
    """Whether, in evaluation, a column of the output also depends on other columns of the input."""

    shape_in: Shape
    shape_out: Shape
    parameters: tuple[ParameterSpec, ...] = ()
    extras: tuple[Extra, ...] = ()
    scratch: tuple[int, int] = (0, 0)
    """The work space of forward and of the input gradient, in numbers for each column. A pass that has work space gets
    it as the last array of `extras`."""

    @abstractmethod
    def cost(self) -> Cost:
        """Return the cost of a row."""

    @abstractmethod
    def forward(
        self, x: Array, y: Array, extras: Sequence[Array], p: Sequence[Array], at: Moment, *others: Array
    ) -> None:
        """Write the output for `x` into `y`. `p` are the parameters, `others` further inputs."""

    def forward_calls(
        self, x: Array, y: Array, extras: Sequence[Array], p: Sequence[Array], *others: Array
    ) -> Sequence[Call]:
        """Return calls that do what `forward` does with these arrays in training. Not for layers that draw."""
        return (partial(self.forward, x, y, extras, p, TRAINING, *others),)

    def input_gradient_calls(
        self, x: Array, y: Array, extras: Sequence[Array], dy: Array, dx: Array, p: Sequence[Array]
    ) -> Sequence[Call]:
        """Like `forward_calls`, for `backward_input`."""
        return (partial(self.backward_input, x, y, extras, dy, dx, p, TRAINING),)

    def weight_gradient_calls(
        self, x: Array, extras: Sequence[Array], dy: Array, gradients: Sequence[Array], *, accumulate: bool
    ) -> Sequence[Call]:
        """Like `forward_calls`, for `backward_weight`."""
        return (partial(self.backward_weight, x, extras, dy, gradients, accumulate=accumulate),)

    def living_units(self, y: Array) -> NDArray[np.bool_]:
        """Return for each unit whether any column of the output `y` passes a gradient to it. For layers that
        `can_die`."""
        raise AssertionError(f"{type(self).__name__} always passes a gradient")

    def why_not_continued(self) -> str | None:
        """Return why `continue_forward` cannot replace `forward`; None if it can."""
        return (
            f"{type(self).__name__.lower()} looks at all positions of a row at once" if self.mixes_positions else None
        )

    def continue_forward(self, x: Array, y: Array, p: Sequence[Array], past: Past, *others: Array) -> None:
        """Write the output of `forward` for the positions of one row from `past.length` on; `x` has only these
        positions. `past` keeps the arrays that later positions need."""
        extras = [np.empty((extra.features, x.shape[1]), dtype=x.dtype) for extra in self.extras]
        self.forward(x, y, extras, p, EVALUATING, *others)

    def backward_input(
        self, x: Array, y: Array, extras: Sequence[Array], dy: Array, dx: Array, p: Sequence[Array], at: Moment
    ) -> None:
        """Write ∂ℓ/∂x into `dx`. The content of `x` or `y` is undefined unless `input_gradient_reads` names it."""
        raise AssertionError(f"{type(self).__name__} passes its gradient on, or takes tokens: it has no input gradient")

    def backward_weight(
        self, x: Array, extras: Sequence[Array], dy: Array, gradients: Sequence[Array], *, accumulate: bool
    ) -> None:
        """Set the parameters' gradients, or (`accumulate`) add to them. The arrays may hold the columns of several
        micro-batches. The content of `x` or `dy` is undefined unless `weight_gradient_reads` names it."""
        raise AssertionError(f"{type(self).__name__} has no parameters")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerKind:
    """A kind of layer that a job file can name; `options` is the dataclass of its options.

    `build(options, shape_in, path)` returns the layer. A short form has `expand(options, shape_in)` instead, which
    returns the layers that it stands for. If `adds_input`, the input of these layers is added to their output.
    """

    name: str
    options: type
    build: Callable[[Any, Shape, tuple[int, ...]], Layer] | None = None
    expand: Callable[[Any, Shape], Sequence[Any]] | None = None
    adds_input: bool = False
    takes_tokens: bool = False
    """Whether its input may be token numbers."""
    of_blocks: bool = False
    """Whether it stands for equal blocks, so that the name of a layer inside it has the number of the block."""
    groups_only: bool = False
    """Whether it only groups layers, so that the names of layers inside it leave it out."""
