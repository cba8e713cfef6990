"""Every layer, loss and optimizer compared with torch's, forward and backward, in both precisions."""

from __future__ import annotations

import json
from typing import Any, get_args

import numpy as np
import pytest

from coordinator.job.rates import ScheduleSection
from stages.arrays import Array
from stages.layers import KINDS, LayerSpec, entry
from stages.spec import AdamSpec, ModelSpec, OptimizerSpec, Precision, SgdSpec
from stages.stage import Stage
from tests.stages.losses import CASES, GOLDEN, case, divisor, torch_values
from tests.stages.torch_case import torch_layer, torch_optimizer

torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'pipetrain[benchmark]')")

ROWS = 7
DEEP = ("embedding", "positions", "dropout", "dot_product_attention")
LAYERS: dict[str, LayerSpec] = {
    "linear": entry("linear", units=5),
    "linear without bias": entry("linear", units=5, bias=False),
    "relu": entry("relu"),
    "leaky_relu": entry("leaky_relu", slope=0.2),
    "leaky_relu of slope 0": entry("leaky_relu", slope=0.0),
    "tanh": entry("tanh"),
    "sigmoid": entry("sigmoid"),
    "gelu": entry("gelu"),
    "silu": entry("silu"),
    "softplus": entry("softplus"),
    "swiglu": entry("swiglu"),
    "layer_norm": entry("layer_norm"),
    "layer_norm without bias": entry("layer_norm", bias=False, epsilon=1e-3),
    "rms_norm": entry("rms_norm"),
    "flatten": entry("flatten"),
}
TOLERANCE: dict[Precision, float] = {"float32": 2e-6, "float64": 1e-14}
"""For values around 1: torch adds a product's terms in another order, and its float32 functions have errors of a few
units in the last place."""
PRECISIONS = pytest.mark.parametrize("precision", get_args(Precision))


def _close(found: Array, expected: Any, precision: Precision) -> None:
    reference = expected.detach().numpy() if hasattr(expected, "detach") else expected
    assert found.dtype == reference.dtype == np.dtype(precision)
    np.testing.assert_allclose(found, reference, rtol=TOLERANCE[precision], atol=TOLERANCE[precision])


def _inputs(rng: np.random.Generator, precision: Precision, n: int) -> Array:
    """Return (n, ROWS) numbers: ordinary ones, both zeros, and numbers at which the functions are almost flat."""
    x = rng.normal(size=(n, ROWS)).astype(precision)
    x.flat[:6] = [0.0, -0.0, 6.0, -6.0, 20.0, -20.0]
    return x


def test_every_kind_of_layer_has_a_golden() -> None:
    """Layers that work on positions are tested in test_deep_layers."""
    built = {name for name, kind in KINDS.items() if kind.build is not None}
    assert {spec.kind for spec in LAYERS.values()} == built - set(DEEP)


@PRECISIONS
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_torch_s_forward_and_backward(name: str, precision: Precision) -> None:
    """The layer is the second of two, so that its input gradient is needed."""
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
@pytest.mark.parametrize("name", CASES)
def test_a_loss_is_torch_s_with_its_gradient(name: str, precision: Precision) -> None:
    loss, f, targets = case(name)
    f, targets = f.astype(precision), targets if loss.takes_labels else targets.astype(precision)
    value, gradient = torch_values(name, precision)
    count = divisor(loss, targets, len(f))
    found = loss.evaluate(f.copy(), targets, count)
    assert found.total / count == pytest.approx(value, rel=TOLERANCE[precision])
    _close(found.gradient, gradient, precision)
    if loss.takes_labels:
        counts = targets != loss.ignore_index
        assert found.correct == int((f.argmax(axis=0) == targets)[counts].sum())


def test_the_golden_losses_are_torch_s() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    for name in CASES:
        value, gradient = torch_values(name)
        assert golden[name]["loss"] == pytest.approx(value, rel=1e-14)
        np.testing.assert_allclose(golden[name]["gradient"], gradient, rtol=1e-13, atol=1e-15)


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
        AdamSpec(learning_rate=0.01, decoupled=False, decays_vectors=True),
        AdamSpec(learning_rate=0.01, decoupled=False, weight_decay=0.1, decays_vectors=True),
        AdamSpec(learning_rate=0.01, betas=(0.8, 0.95), epsilon=1e-6, weight_decay=0.1),
    ],
    ids=str,
)
def test_an_optimizer_is_torch_s_over_fifty_steps(spec: OptimizerSpec, precision: Precision) -> None:
    """A matrix, and a vector that decays only with `decay_vectors`."""
    model = ModelSpec(input_shape=(7,), layers=(entry("linear", units=9),), loss="mse", precision=precision)
    stage, rng = Stage(model, 0, 1, spec), np.random.default_rng(7)
    parameters = {
        name: torch.nn.Parameter(torch.from_numpy(value))
        for name, value in stage.parameters.named(stage.parameters.values).items()
    }
    theirs = torch_optimizer(spec, [parameters["0.weight"]], [parameters["0.bias"]])
    for step in range(1, 51):
        for name, parameter in parameters.items():
            gradient = rng.normal(size=parameter.shape).astype(precision)
            parameter.grad = torch.from_numpy(gradient.copy())
            stage.parameters.gradient(name)[...] = gradient
        theirs.step()
        stage.update(step, spec.learning_rate)
    for name, parameter in parameters.items():
        expected = parameter.detach().numpy()
        limit = {"float64": 1e-12, "float32": 2e-5}[precision]
        np.testing.assert_allclose(stage.parameters.value(name), expected, rtol=limit, atol=limit)


SCHEDULES: dict[str, tuple[dict[str, Any], Any]] = {
    "linear": ({"linear": {"min_rate": 0.01}}, lambda s, o: s.LinearLR(o, 1.0, 0.1, total_iters=40)),
    "cosine": ({"cosine": {"min_rate": 0.01}}, lambda s, o: s.CosineAnnealingLR(o, 40, eta_min=0.01)),
    "exponential": ({"exponential": {"factor": 0.9}}, lambda s, o: s.ExponentialLR(o, 0.9)),
    "step": ({"step": {"every": 7, "factor": 0.3}}, lambda s, o: s.StepLR(o, 7, 0.3)),
    "one_cycle": (
        {"one_cycle": {"min_rate": 0.1 / 25 / 1e4}},
        lambda s, o: s.OneCycleLR(o, max_lr=0.1, total_steps=40, cycle_momentum=False),
    ),
    "warm-up, then cosine": (
        {"cosine": {"warmup": 10, "min_rate": 0.01}},
        lambda s, o: s.SequentialLR(
            o,
            [s.LinearLR(o, 0.1, 1.0, total_iters=9), s.CosineAnnealingLR(o, 30, eta_min=0.01)],
            milestones=[10],
        ),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_are_those_of_torch_s_schedulers(name: str) -> None:
    document, make = SCHEDULES[name]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))], lr=0.1)
    scheduler = make(torch.optim.lr_scheduler, optimizer)
    rate = ScheduleSection.model_validate(document).rates(0.1, 40, 8)
    for step in range(1, 41):
        assert rate(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12), step
        optimizer.step()
        scheduler.step()
