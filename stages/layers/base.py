"""What a layer declares, and the operations that it has. A layer holds no arrays and knows no stage.

Arrays are (features, columns), see stages.shapes. Of the arrays of a layer, x is its input, y its output, dy and dx
are ∂ℓ/∂y and ∂ℓ/∂x. A stage keeps those that `input_gradient_reads` and `weight_gradient_reads` name.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from stages.arrays import Array
from stages.shapes import Shape

Reads = Literal["x", "y", "dy"]


class LayerProblem(Exception):
    """What a layer cannot be made of: one line for the user, to be put behind the layer's path."""


class Moment(NamedTuple):
    """Where a micro-batch belongs: for layers that draw random numbers.

    `seed` is the model's; `first` is the place of the micro-batch's first row in the rows of its step.
    """

    training: bool = False
    seed: int = 0
    step: int = 0
    first: int = 0


EVALUATING = Moment()


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """How a weight is drawn: with the standard deviation `std` if the layer's own `init` gives one, else with that of
    the model's `init`, else with `default_std`, else by the lecture's rule from `fan_in`."""

    fan_in: int
    std: float | None = None
    default_std: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterSpec:
    """One parameter: drawn, or else begun as `constant` everywhere. `tied_to` is the entry of `model.layers` that owns
    the weight."""

    name: str
    shape: tuple[int, ...]
    constant: float = 0.0
    draw: Draw | None = None
    tied_to: int | None = None

    @property
    def numbers(self) -> int:
        """How many there are."""
        return math.prod(self.shape)


class Extra(NamedTuple):
    """An array that forward writes beside the output: `features` numbers a column; kept until the weight gradient if
    `until_weight`, else until the input gradient."""

    features: int
    until_weight: bool = False


class Cost(NamedTuple):
    """For each row: floating-point operations of matrix products in F, I and W, and of other work, which is given in
    operations of a product that would take as long."""

    products: tuple[float, float, float] = (0.0, 0.0, 0.0)
    elements: tuple[float, float, float] = (0.0, 0.0, 0.0)


ELEMENT = 40.0
"""What one pass over an element costs: about as much as this many operations of a product."""


class Layer(ABC):
    """One operation of the network on one input (`n_inputs` of them for a sum)."""

    n_inputs: ClassVar[int] = 1
    in_place: ClassVar[bool] = False
    """Forward may write over x, the input gradient over dy."""
    is_identity: bool = False
    """y is x itself: nothing is computed, in any direction."""
    passes_gradient: ClassVar[bool] = False
    """The gradient of each input is dy itself: nothing is computed."""
    input_gradient_reads: ClassVar[frozenset[Reads]] = frozenset()
    """Which of x and y the input gradient reads; it always reads dy."""
    weight_gradient_reads: ClassVar[frozenset[Reads]] = frozenset()
    """Which of x and dy the weight gradient reads."""
    weight_gain: ClassVar[float] = 1.0
    """Weights in front of this layer are drawn with the standard deviation sqrt(weight_gain / fan_in)."""
    is_transparent: ClassVar[bool] = False
    """For `weight_gain`, what follows this layer counts instead."""

    shape_in: Shape
    shape_out: Shape
    parameters: tuple[ParameterSpec, ...] = ()
    extras: tuple[Extra, ...] = ()

    @abstractmethod
    def cost(self) -> Cost:
        """What a row costs."""

    @abstractmethod
    def forward(
        self, x: Array, y: Array, extras: Sequence[Array], p: Sequence[Array], at: Moment, *others: Array
    ) -> None:
        """Write the output for `x` into `y`. `p` are the parameters, `others` further inputs."""

    def backward_input(
        self, x: Array, y: Array, extras: Sequence[Array], dy: Array, dx: Array, p: Sequence[Array], at: Moment
    ) -> None:
        """Write ∂ℓ/∂x into `dx`. `x` and `y` mean something only if `input_gradient_reads` names them."""
        raise AssertionError(f"{type(self).__name__} passes its gradient on, or takes tokens: nobody asks for it")

    def backward_weight(
        self, x: Array, extras: Sequence[Array], dy: Array, gradients: Sequence[Array], *, accumulate: bool
    ) -> None:
        """Set the parameters' gradients, or (`accumulate`) add to them. The arrays may hold the columns of several
        micro-batches. `x` and `dy` mean something only if `weight_gradient_reads` names them."""
        raise AssertionError(f"{type(self).__name__} has no parameters")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerKind:
    """A kind of layer as a job file names it: `options` is the dataclass of what can be set.

    `build(options, shape_in, path)` makes the layer. A short form has `expand(options, shape_in)` instead: the layers
    that it stands for. If `adds_input`, their input is added to their output.
    """

    name: str
    options: type
    build: Callable[[Any, Shape, tuple[int, ...]], Layer] | None = None
    expand: Callable[[Any, Shape], Sequence[Any]] | None = None
    adds_input: bool = False
    takes_tokens: bool = False
    """Token numbers may be its input; no other kind takes them."""
