"""Where a value first became NaN or infinite."""

from __future__ import annotations

import numpy as np
import pytest

from stages.actions import Action
from stages.arrays import Array
from stages.diagnosis import check_gradient, check_gradients_total, check_output, is_finite
from stages.errors import NonFinite
from stages.layers import entry
from stages.layers.base import EVALUATING
from stages.spec import ModelSpec, Precision, SgdSpec
from stages.stage import Stage

LINEAR = entry("linear", units=3)
LAYERS = (LINEAR, entry("flatten"), entry("tanh"), LINEAR, entry("relu"), LINEAR)
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # workers check the values instead


def _stage(first: int = 0, precision: Precision = "float32") -> Stage:
    model = ModelSpec(input_shape=(3,), layers=LAYERS, loss="mse", precision=precision, seed=1)
    return Stage(model, first, len(LAYERS), SgdSpec(learning_rate=0.1))


def _set(stage: Stage, layer: int, value: float) -> None:
    stage.parameters.value(f"{layer}.weight")[0, 0] = value


def _x(precision: Precision = "float32") -> Array:
    return np.random.default_rng(0).normal(size=(3, 4)).astype(precision)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("first", "layer"), [(0, 0), (0, 3), (0, 5), (3, 3), (3, 5)])
def test_the_first_layer_of_the_stage_whose_output_is_not_finite_is_named(first: int, layer: int, value: float) -> None:
    stage, x = _stage(first), _x()
    stage.begin_step(1)
    _set(stage, layer, value)
    if layer != 5:
        _set(stage, 5, np.nan)  # later outputs are broken too, but not first
    y = stage.forward(0, x)
    with pytest.raises(NonFinite) as told:
        check_output(stage, x, y, EVALUATING, "step 7", Action.parse("2F4"))
    assert str(told.value).startswith(
        f"the output of layer {layer} became NaN or infinite in step 7, micro-batch 4 (2F4);"
    )
    assert "lower learning rate" in str(told.value)


@pytest.mark.parametrize("layer", [3, 5])
def test_the_gradient_is_followed_backwards(layer: int) -> None:
    """On the way back, ∂ℓ/∂f of the layer before the broken weight is the first that is not finite."""
    stage, x = _stage(first=0), _x()
    stage.begin_step(2)
    stage.forward(1, x)
    _set(stage, layer, np.inf)  # broken after forward, so only the backward pass uses it
    dx = stage.backward_input(1, np.ones((3, 4), np.float32))
    with pytest.raises(NonFinite) as told:
        check_gradient(stage, dx, 7, Action.parse("0B1"))
    before = {5: 3, 3: 0}[layer]
    assert f"∂ℓ/∂f of layer {before} became NaN or infinite in step 7, micro-batch 1 (0B1)" in str(told.value)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_numbers_whose_squares_overflow_are_no_failure(precision: Precision) -> None:
    largest = float(np.finfo(precision).max)
    stage, x = _stage(precision=precision), _x(precision)
    stage.begin_step(1)
    y = stage.forward(0, x)
    y[:] = [[largest], [-largest], [largest]]
    check_output(stage, x, y, EVALUATING, "step 7", Action.parse("0F0"))
    check_gradient(stage, y, 7, Action.parse("0B0"))


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_one_bad_element_is_enough_wherever_it_is_and_however_the_array_lies(precision: Precision) -> None:
    for bad in (np.nan, np.inf, -np.inf):
        for place in np.ndindex(3, 4):
            array = np.zeros((3, 4), precision)
            array[place] = bad
            assert not is_finite(array)
            assert not is_finite(array.T)
            assert not is_finite(np.asfortranarray(array))
    assert is_finite(np.zeros((3, 0), precision))


def test_of_sums_over_micro_batches_the_last_layer_is_named_first() -> None:
    """The order is that of the backward pass, from the loss. Layer 10 comes after layer 9, although its name sorts
    first."""
    check_gradients_total({"0.weight": 1.0, "10.weight": 0.0}, 7, ())
    with pytest.raises(NonFinite, match=r"^the gradient of 10\.bias became NaN or infinite in step 7, in the sum"):
        check_gradients_total({"0.weight": np.nan, "9.weight": np.inf, "10.bias": np.nan, "10.weight": 1.0}, 7, ())


def test_a_layer_in_a_block_is_named_as_people_count() -> None:
    """The path `2.1.0.1.0` alone says little, so the name adds: block 1 of the transformer, in its attention."""
    blocks = entry("transformer", heads=1, times=2)
    repeated = entry("repeat", times=2, layers=(entry("residual", layers=(entry("linear", units=4),)),))
    layers = (entry("embedding", units=4), entry("positions"), blocks, repeated, entry("linear", units=5))
    model = ModelSpec(input_shape=(3,), vocabulary=5, layers=layers, loss="cross_entropy", seed=1)
    ops = model.network.ops
    names = {op.name: str(op) for op in ops}
    assert names["2.1.0.1.0"] == "2.1.0.1.0 (transformer block 1, attention, linear)"
    assert names["2.1.1"] == "2.1.1 (transformer block 1, add)"
    assert names["2.0.1.2"] == "2.0.1.2 (transformer block 0, gelu)"
    assert names["3.1.0.0"] == "3.1.0.0 (repeat block 1, linear)"
    assert names["4"] == "4"
    stage = Stage(model, 0, len(ops), SgdSpec(learning_rate=0.1))
    stage.parameters.value("2.1.0.1.0.weight")[0, 0] = np.nan
    tokens = np.array([[0, 1, 2]])
    y = stage.infer(tokens)
    with pytest.raises(NonFinite) as told:
        check_output(stage, tokens, y, EVALUATING, "step 7", Action.parse("0F0"))
    assert str(told.value).startswith(
        "the output of layer 2.1.0.1.0 (transformer block 1, attention, linear) became NaN or infinite in step 7"
    )
    with pytest.raises(NonFinite) as told:
        check_gradients_total({"2.0.1.3.weight": np.nan, "0.weight": 1.0}, 7, ops)
    assert str(told.value).startswith("the gradient of 2.0.1.3.weight (transformer block 0, linear) became NaN")
