"""Every layer, loss and optimizer beside torch's own, forward and backward, in both precisions."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest

from stages.arrays import Array
from stages.layers import KINDS, LayerSpec, entry
from stages.loss import evaluate_loss, loss_count
from stages.optim import Sgd
from stages.spec import LossKind, ModelSpec, Precision, SgdSpec
from stages.stage import Stage
from tests.stages.torch_case import torch_layer, torch_loss, torch_sgd

torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'pipetrain[benchmark]')")

ROWS = 7
LAYERS: dict[str, LayerSpec] = {
    "linear": entry("linear", units=5),
    "linear without bias": entry("linear", units=5, bias=False),
    "relu": entry("relu"),
    "leaky_relu": entry("leaky_relu", slope=0.2),
    "leaky_relu of slope 0": entry("leaky_relu", slope=0.0),
    "tanh": entry("tanh"),
    "sigmoid": entry("sigmoid"),
    "gelu": entry("gelu"),
    "flatten": entry("flatten"),
}
TOLERANCE: dict[Precision, float] = {"float32": 2e-6, "float64": 1e-14}
"""Of values around 1; torch adds a product's terms in another order, and its float32 functions err by a few units in
the last place."""
PRECISIONS = pytest.mark.parametrize("precision", get_args(Precision))


def _close(found: Array, expected: Any, precision: Precision) -> None:
    reference = expected.detach().numpy() if hasattr(expected, "detach") else expected
    assert found.dtype == reference.dtype == np.dtype(precision)
    np.testing.assert_allclose(found, reference, rtol=TOLERANCE[precision], atol=TOLERANCE[precision])


def _inputs(rng: np.random.Generator, precision: Precision, n: int) -> Array:
    """(n, ROWS): ordinary numbers, both zeros, and numbers where the functions are flat or nearly so."""
    x = rng.normal(size=(n, ROWS)).astype(precision)
    x.flat[:6] = [0.0, -0.0, 6.0, -6.0, 20.0, -20.0]
    return x


def test_every_kind_of_layer_has_a_golden() -> None:
    assert {spec.kind for spec in LAYERS.values()} == {kind.name for kind in KINDS.values() if kind.build is not None}


@PRECISIONS
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_torch_s_forward_and_backward(name: str, precision: Precision) -> None:
    """As the second of two layers, so that its input gradient is asked for."""
    spec, rng = LAYERS[name], np.random.default_rng(5)
    first = entry("linear", units=6)
    model = ModelSpec(input_shape=(4,), layers=(first, spec), loss="mse", precision=precision)
    stage = Stage(model, 1, 2, SgdSpec(learning_rate=0.1))
    theirs = torch_layer(spec, stage.n_in).to(getattr(torch, precision))
    ours = {key.partition(".")[2]: view for key, view in stage.parameters.views(stage.parameters.values).items()}
    for view in ours.values():
        view[...] = rng.normal(size=view.shape)
    theirs.load_state_dict({key: torch.from_numpy(view.copy()) for key, view in ours.items()})

    x, dy = _inputs(rng, precision, stage.n_in), rng.normal(size=(stage.n_out, ROWS)).astype(precision)
    torch_x = torch.from_numpy(x.T.copy()).requires_grad_()
    y = theirs(torch_x)
    y.backward(torch.from_numpy(dy.T.copy()))

    stage.begin_step(1)
    _close(stage.forward(0, x).T, y, precision)
    _close(stage.backward_input(0, dy).T, torch_x.grad, precision)
    stage.backward_weight(0)
    gradients = stage.parameters.views(stage.parameters.gradients)
    expected = {key: parameter.grad for key, parameter in theirs.named_parameters()}
    assert gradients.keys() == {f"1.{key}" for key in expected}
    for key, gradient in expected.items():
        _close(gradients[f"1.{key}"], gradient, precision)


@PRECISIONS
@pytest.mark.parametrize("kind", get_args(LossKind))
def test_a_loss_is_torch_s_with_its_gradient(kind: LossKind, precision: Precision) -> None:
    rng = np.random.default_rng(6)
    f = (rng.normal(size=(4, ROWS)) * 3).astype(precision)
    labels = kind == "cross_entropy"
    target = rng.integers(0, 4, size=ROWS) if labels else rng.normal(size=(4, ROWS)).astype(precision)
    torch_f = torch.from_numpy(f.T.copy()).requires_grad_()
    expected = torch_loss(kind)(torch_f, torch.from_numpy(target.T.copy()))
    expected.backward()
    count = loss_count(kind, ROWS, 4)
    found = evaluate_loss(kind, f, target, count)
    assert found.total / count == pytest.approx(expected.item(), rel=TOLERANCE[precision])
    _close(found.gradient.T, torch_f.grad, precision)
    right = int((torch_f.argmax(dim=1).numpy() == target).sum()) if labels else None
    assert found.correct == right


@PRECISIONS
@pytest.mark.parametrize(
    "spec",
    [
        SgdSpec(learning_rate=0.1),
        SgdSpec(learning_rate=0.1, weight_decay=0.05),
        SgdSpec(learning_rate=0.1, momentum=0.9),
        SgdSpec(learning_rate=0.1, momentum=0.9, weight_decay=0.05),
        SgdSpec(learning_rate=0.1, momentum=0.9, nesterov=True),
        SgdSpec(learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=0.05),
    ],
    ids=str,
)
def test_sgd_is_torch_s_over_several_steps(spec: SgdSpec, precision: Precision) -> None:
    rng = np.random.default_rng(7)
    value = rng.normal(size=50).astype(precision)
    parameter = torch.nn.Parameter(torch.from_numpy(value.copy()))
    theirs, slot = torch_sgd(spec, [parameter]), np.empty_like(value)
    ours = Sgd(spec, value, slot)
    for _ in range(5):
        gradient = rng.normal(size=50).astype(precision)
        parameter.grad = torch.from_numpy(gradient.copy())
        theirs.step()
        slot[:] = gradient
        ours.update(spec.learning_rate)
        _close(value, parameter, precision)
