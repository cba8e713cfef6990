"""Whole training runs compared with references that share nothing with `Stage`: rational arithmetic, and torch."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from coordinator.job.spec import JobSpec, parse_job
from coordinator.plan.blueprint import make_blueprint
from coordinator.train.local import LocalWorkers
from coordinator.train.rows import StepRow
from coordinator.train.trainer import Trainer
from coordinator.train.workers import gather
from stages.arrays import Array
from stages.data import Dataset
from tests.coordinator.exact_training import RationalNetwork, layer_sizes

PIPELINES: list[dict[str, Any]] = [
    {"stages": 1},
    {"stages": 3, "schedule": "gpipe", "weight_grad_group": 2},
    {"stages": 3, "schedule": "1f1b"},
    {"stages": 3, "schedule": "zb-h1"},
    {"stages": 4, "workers": 2, "schedule": "interleaved-1f1b"},
]
pipelines = pytest.mark.parametrize("pipeline", PIPELINES, ids=lambda p: f"{p['stages']} {p.get('schedule', '')}")


def _job(layers: list[Any], loss: str, training: dict[str, Any], **more: Any) -> JobSpec:
    return parse_job(
        {
            "seed": 5,
            "model": {"input": [3], "layers": layers, "loss": loss},
            "data": {"source": "digits"},  # not read: the tests give the rows
            "training": training,
            **more,
        }
    )


def _train(spec: JobSpec, data: Dataset, parameters: dict[str, Array]) -> tuple[list[float], dict[str, Array]]:
    """Return the losses by step and the parameters after the last step, trained by threads as workers."""
    blueprint = make_blueprint(spec, len(data))
    with contextlib.closing(LocalWorkers(blueprint, train=data, parameters=parameters)) as workers:
        rows = list(Trainer(blueprint, workers, train_rows=len(data), validation_rows=0).rows())
        assert {row.summed for row in rows} == {spec.model.loss.kind == "sum_of_squares"}
        return [row.loss for row in rows if isinstance(row, StepRow)], dict(gather(workers, "parameters"))


# rational arithmetic -----------------------------------------------------------------------------------------------

SIZES = (3, 4, 4, 2)
NAMES = ("0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias")


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("nesterov", [False, True])
@pipelines
def test_where_no_sum_is_rounded_training_gives_the_exact_numbers(
    pipeline: dict[str, Any], nesterov: bool, precision: str
) -> None:
    """Weights and data are small whole numbers and all rates powers of two, so two steps need less than 24 bits. Then
    any order of a sum gives the exact result, and every bit of the result is known."""
    rng = np.random.default_rng(45)  # with this seed, units are on and off in both steps
    x = rng.integers(-1, 2, size=(10, 3)).astype(precision)
    y = rng.integers(-1, 2, size=(10, 2)).astype(precision)
    start = [rng.integers(-1, 2, size=shape).astype(precision) for shape in layer_sizes(SIZES)]
    layers = [{"linear": {"units": 4}}, "relu", {"linear": {"units": 4}}, "relu", {"linear": {"units": 2}}]
    sgd = {"learning_rate": 0.125, "momentum": 0.5, "weight_decay": 1.0, "nesterov": nesterov}
    spec = _job(
        layers, "sum_of_squares",
        {"epochs": 1, "batch_size": 5, "micro_batches": 3, "optimizer": {"sgd": sgd}},
        precision=precision, pipeline=pipeline,
    )  # fmt: skip

    exact, losses = RationalNetwork(start), []
    order = np.random.default_rng([5, 1, 0]).permutation(10)
    for rows in (order[:5], order[5:]):
        rate, momentum, decay = Fraction(1, 8), Fraction(1, 2), Fraction(1)
        losses.append(exact.step(x[rows].T, y[rows].T, rate, momentum, decay, nesterov))
    found_losses, found = _train(spec, Dataset(x=x, y=y), dict(zip(NAMES, start, strict=True)))

    assert found_losses == [float(loss) for loss in losses]
    assert list(found) == list(NAMES)
    for name, value in zip(NAMES, exact.values, strict=True):
        assert any(number.denominator > 16 for number in value.flat), "too simple an example"
        assert [Fraction(float(number)) for number in found[name].flat] == list(value.flat), name
        assert found[name].dtype == precision


# torch -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pipelines
def test_several_epochs_are_torch_s(pipeline: dict[str, Any], clip_norm: float | None) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'pipetrain[benchmark]')")
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(23, 3)), rng.integers(0, 4, size=23)
    layers = [
        "flatten", {"linear": {"units": 6}}, "gelu", {"linear": {"units": 5, "bias": False}}, "tanh",
        {"linear": {"units": 5}}, "sigmoid", {"leaky_relu": {"slope": 0.1}}, {"linear": {"units": 4}},
    ]  # fmt: skip
    sgd = {"learning_rate": 0.3, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True}
    spec = _job(
        layers, "cross_entropy",
        {"epochs": 4, "batch_size": 8, "micro_batches": 3, "optimizer": {"sgd": sgd}, "clip_norm": clip_norm},
        precision="float64", pipeline=pipeline,
    )  # fmt: skip

    nn = torch.nn
    net: Any = nn.Sequential(
        nn.Flatten(), nn.Linear(3, 6), nn.GELU(), nn.Linear(6, 5, bias=False), nn.Tanh(),
        nn.Linear(5, 5), nn.Sigmoid(), nn.LeakyReLU(0.1), nn.Linear(5, 4),
    ).double()  # fmt: skip
    start: dict[str, Array] = {name: rng.normal(size=tuple(value.shape)) for name, value in net.state_dict().items()}
    net.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in start.items()})
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3, momentum=0.9, weight_decay=0.01, nesterov=True)
    losses, norms = [], []
    for epoch in range(4):
        order = np.random.default_rng([5, 1, epoch]).permutation(23)
        for rows in (order[:8], order[8:16], order[16:]):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(torch.from_numpy(x[rows])), torch.from_numpy(y[rows]))
            loss.backward()
            if clip_norm is not None:
                norms.append(float(nn.utils.clip_grad_norm_(net.parameters(), clip_norm)))
            optimizer.step()
            losses.append(loss.item())
    found_losses, found = _train(spec, Dataset(x=x, y=y), start)

    assert clip_norm is None or min(norms) < clip_norm < max(norms), "steps that are clipped, and steps that are not"
    np.testing.assert_allclose(found_losses, losses, rtol=1e-12)
    assert found.keys() == net.state_dict().keys()
    for name, value in net.state_dict().items():
        np.testing.assert_allclose(found[name], value.numpy(), rtol=1e-12, atol=1e-13, err_msg=name)
