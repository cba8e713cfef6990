"""Networks over tokens compared with torch's autograd, in float64, with values around 1; every cut gives the same
bits."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from stages.arrays import Array
from stages.layers import LayerSpec, entry
from stages.layers.base import Moment
from stages.network import LayerError, Network
from stages.shapes import Shape
from stages.spec import ModelSpec, SgdSpec
from stages.stage import Stage
from tests.finite_difference import numerical_gradient
from tests.stages.torch_transformer import torch_network

VOCABULARY, POSITIONS, WIDTH, HEADS, ROWS = 13, 7, 12, 3, 5  # all different, so that a transposed array never fits
SGD = SgdSpec(learning_rate=0.1)
FFN = (entry("layer_norm"), entry("linear", units=10), entry("silu"), entry("linear", units=WIDTH, bias=False))
BODIES: dict[str, tuple[LayerSpec, ...]] = {
    "transformer": (entry("transformer", heads=HEADS, times=2),),
    "one head of keys, rotary, rms_norm, swiglu": (
        entry("transformer", heads=HEADS, kv_heads=1, rotary=True, norm="rms_norm", activation="swiglu", ffn=9),
    ),
    "no mask, rotary": (entry("transformer", heads=HEADS, rotary=True, causal=False, activation="gelu_tanh"),),
    "residuals in residuals": (
        entry("residual", layers=(entry("residual", layers=FFN), entry("attention", heads=HEADS, bias=False))),
    ),
    "repeated": (entry("repeat", times=3, layers=(entry("residual", layers=FFN), entry("softplus"))),),
    "not a residual": (entry("attention", heads=2, kv_heads=1), entry("tanh"), *FFN),
}


TRAINING = Moment(training=True)


def _model(body: tuple[LayerSpec, ...], precision: Any = "float64") -> ModelSpec:
    ends = entry("embedding", units=WIDTH), entry("positions")
    return ModelSpec(
        input_shape=(POSITIONS,),
        vocabulary=VOCABULARY,
        layers=(*ends, *body, entry("layer_norm"), entry("linear", units=VOCABULARY)),
        loss="cross_entropy",
        precision=precision,
        seed=3,
    )


def _step(
    stages: list[Stage], tokens: Any, dy: Array, *, together: bool = False, at: Moment = TRAINING
) -> tuple[Array, dict[str, Array]]:
    """Return outputs and parameter gradients of one step of two micro-batches."""
    outputs, cuts = [], (0, 2, len(tokens))
    for stage in stages:
        stage.begin_step(2)
    for j, (a, b) in enumerate(pairwise(cuts)):
        value = tokens[a:b].reshape(1, -1)
        for stage in stages:
            value = stage.forward(j, value, at._replace(first=a)).copy()
        outputs.append(value)
        gradient = dy[:, a * POSITIONS : b * POSITIONS]
        for stage in reversed(stages):
            back = stage.backward if together else stage.backward_input
            gradient = back(j, gradient).copy()
        for stage in stages if not together else ():
            stage.backward_weight(j)
    assert all(stage.buffers.lent_bytes == 0 for stage in stages)
    found = {n: g for stage in stages for n, g in stage.parameters.named(stage.parameters.gradients).items()}
    return np.concatenate(outputs, axis=1), found


def _cuts(network: Network) -> list[list[int]]:
    n = len(network.ops)
    return [[0, n], list(range(n + 1)), [0, 1, n - 1, n], [0, n // 3, n // 2, n]]


@pytest.mark.parametrize("name", BODIES)
def test_outputs_and_gradients_are_torch_s_and_bitwise_the_same_over_every_cut_and_recomputation(name: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'pipetrain[benchmark]')")
    model, rng = _model(BODIES[name]), np.random.default_rng(1)
    tokens, dy = rng.integers(0, VOCABULARY, (ROWS, POSITIONS)), rng.normal(size=(VOCABULARY, ROWS * POSITIONS))
    whole = Stage(model, 0, len(model.network.ops), SGD)
    values = {n: rng.normal(size=v.shape) for n, v in whole.parameters.views(whole.parameters.values).items()}
    theirs = torch_network(model).double()
    theirs.load_state_dict({n: torch.from_numpy(value) for n, value in values.items()})
    expected = theirs(torch.from_numpy(tokens))
    expected.backward(torch.from_numpy(np.ascontiguousarray(dy.reshape(-1, ROWS, POSITIONS).transpose(1, 2, 0))))

    first: tuple[Array, dict[str, Array]] | None = None
    for bounds in _cuts(model.network):
        for recompute in (False, True):
            stages = [Stage(model, a, b, SGD, recompute=recompute) for a, b in pairwise(bounds)]
            for stage in stages:
                stage.load(values)
            found = _step(stages, tokens, dy, together=recompute)
            first = first or found
            np.testing.assert_array_equal(found[0], first[0])
            for parameter, gradient in first[1].items():
                np.testing.assert_array_equal(found[1][parameter], gradient, err_msg=parameter)
    assert first is not None
    _close(first[0], expected.detach().numpy().transpose(2, 0, 1).reshape(VOCABULARY, -1), "outputs")
    assert first[1].keys() == dict(theirs.named_parameters()).keys()
    for parameter, module in theirs.named_parameters():
        _close(first[1][parameter], module.grad.numpy(), parameter)


def _close(found: Array, expected: Array, what: str) -> None:
    assert np.abs(found - expected).max() <= 1e-12 * np.abs(expected).max(), what


@pytest.mark.parametrize("body", [entry("dropout", rate=0.4), entry("residual", layers=(entry("dropout", rate=0.5),))])
def test_masks_follow_from_seed_step_layer_and_row_alone(body: LayerSpec) -> None:
    model, rng = _model((body, entry("linear", units=WIDTH))), np.random.default_rng(1)
    tokens, dy = rng.integers(0, VOCABULARY, (ROWS, POSITIONS)), rng.normal(size=(VOCABULARY, ROWS * POSITIONS))
    at, n = Moment(training=True, seed=3, step=4), len(model.network.ops)
    whole = _step([Stage(model, 0, n, SGD)], tokens, dy, at=at)
    cut = _step([Stage(model, a, b, SGD, recompute=True) for a, b in ((0, 3), (3, n))], tokens, dy, at=at)
    np.testing.assert_array_equal(whole[0], cut[0])
    for name, gradient in whole[1].items():
        np.testing.assert_array_equal(cut[1][name], gradient)
    other = _step([Stage(model, 0, n, SGD)], tokens, dy, at=at._replace(step=5))
    plain = _step([Stage(model, 0, n, SGD)], tokens, dy)
    assert not np.array_equal(whole[0], other[0])
    assert not np.array_equal(whole[0], plain[0])


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    layer = _layer(entry("dropout", rate=0.25), Shape(50, 20))
    x, y = np.ones((50, 400)), np.empty((50, 400))
    layer.forward(x, y, (), (), Moment(training=True, seed=1, step=1))
    assert set(np.unique(y)) == {0.0, 1 / 0.75}
    assert abs(y.mean() - 1) < 0.02
    dx = np.empty_like(y)
    layer.backward_input(x, y, (), x, dx, (), Moment(training=True, seed=1, step=1))
    np.testing.assert_array_equal(dx, y)


def _layer(spec: LayerSpec, shape: Shape) -> Any:
    from stages.layers import KINDS

    build = KINDS[spec.kind].build
    assert build is not None
    return build(spec.options, shape, (0,))


LAYERS = [
    (entry("layer_norm"), Shape(6, 4)),
    (entry("rms_norm"), Shape(6, 4)),
    (entry("swiglu"), Shape(6, 4)),
    (entry("flatten"), Shape(6, 4)),
    (entry("dot_product_attention", heads=2), Shape(12, 4)),
    (entry("dot_product_attention", heads=4, kv_heads=2, rotary=True, causal=False), Shape(16, 3)),
]


@pytest.mark.parametrize(("spec", "shape"), LAYERS, ids=str)
def test_gradients_are_the_finite_differences(spec: LayerSpec, shape: Shape) -> None:
    layer, rng, rows = _layer(spec, shape), np.random.default_rng(0), 2
    x = rng.normal(size=(shape.features, rows * shape.columns))
    p = [rng.normal(size=parameter.shape) for parameter in layer.parameters]
    dy = rng.normal(size=(layer.shape_out.features, rows * layer.shape_out.columns))
    extras = [np.empty((extra.features, x.shape[1])) for extra in layer.extras]
    scratch = [[np.full((n, x.shape[1]), np.nan)] if n else [] for n in layer.scratch]
    y = np.empty_like(dy)

    def loss() -> float:
        layer.forward(x, y, extras + scratch[0], p, TRAINING)
        return float((y * dy).sum())

    expected = [numerical_gradient(loss, value) for value in (x, *p)]
    loss()
    dx, gradients = np.empty_like(x), [np.zeros_like(value) for value in p]
    layer.backward_input(x, y, extras + scratch[1], dy, dx, p, TRAINING)
    if p:
        layer.backward_weight(x, extras, dy, gradients, accumulate=False)
        layer.backward_weight(x, extras, dy, gradients, accumulate=True)
        gradients = [gradient / 2 for gradient in gradients]
    for found, right in zip((dx, *gradients), expected, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-6, atol=1e-7)


def test_dtype_stays_float32_in_deep_networks() -> None:
    model, rng = (
        _model((entry("transformer", heads=HEADS, rotary=True, dropout=0.1),), "float32"),
        np.random.default_rng(2),
    )
    tokens = rng.integers(0, VOCABULARY, (ROWS, POSITIONS), dtype=np.uint16)
    dy = rng.normal(size=(VOCABULARY, ROWS * POSITIONS)).astype(np.float32)
    at = Moment(training=True, seed=3, step=1)
    y, gradients = _step([Stage(model, 0, len(model.network.ops), SGD)], tokens, dy, at=at)
    assert {y.dtype, *(g.dtype for g in gradients.values())} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("layers", "problem"),
    [
        ((entry("linear", units=3),), "0 (linear): its input consists of tokens; put embedding before it"),
        ((entry("embedding", units=10), entry("transformer", heads=3)),
         "1.0.0.1 (transformer block 0, attention): heads: got 3, must divide the 10 features of its input"),
        ((entry("embedding", units=6), entry("residual", layers=(entry("linear", units=5),))),
         "1 (residual): its layers turn 6 × 7 positions into 5 × 7 positions; to be added, both need the same shape"),
        ((entry("embedding", units=6), entry("linear", units=13, tied_to=1)),
         "1 (linear): tied_to: got 1, must be an earlier entry of model.layers that has a weight"),
        ((entry("embedding", units=6), entry("linear", units=12, tied_to=0)),
         "1 (linear): tied_to: got 0, whose weight has the shape [13, 6], but this layer's has [12, 6]"),
        ((entry("embedding", units=6), entry("embedding", units=6)),
         "1 (embedding): its input must be tokens, but has 6 features at each of 7 positions; only the first layer "
         "of a text model takes them"),
        ((entry("embedding", units=6), entry("flatten"), entry("positions")),
         "2 (positions): its input must be vectors at positions, but has 42 features; put embedding before it"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_with_its_path(layers: tuple[LayerSpec, ...], problem: str) -> None:
    model = ModelSpec(input_shape=(POSITIONS,), vocabulary=VOCABULARY, layers=layers, loss="mse")
    with pytest.raises(LayerError) as told:
        _ = model.network
    assert str(told.value) == problem
