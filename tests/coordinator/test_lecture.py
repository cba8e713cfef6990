"""The lecture's networks: pipeline, formulae and finite differences agree."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

import cluster.cli.lecture as command
from cluster.data.sources import load_data
from coordinator.job.spec import load_job
from coordinator.lecture import MATRIX, NETWORKS, SCALAR, LectureNetwork, lecture_rows
from coordinator.lecture.formulae import by_hand, derivative, forward_values
from coordinator.lecture.pipeline import pipeline_values
from coordinator.plan.blueprint import make_blueprint
from coordinator.train.local import LocalWorkers
from coordinator.train.workers import gather
from stages.errors import NonFinite
from stages.orders import TrainStep

EXAMPLES = Path(__file__).parents[2] / "examples" / "lecture"
both = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)


def symbols(weight: str) -> list[str]:
    forward = ["f₀", "h₁", "f₁", "h₂", "f₂", "h₃", "f₃", "ℓ"]
    backward = [
        ["∂ℓ/∂f₃", "∂ℓ/∂β₃", f"∂ℓ/∂{weight}₃", "∂ℓ/∂h₃"],
        ["∂ℓ/∂f₂", "∂ℓ/∂β₂", f"∂ℓ/∂{weight}₂", "∂ℓ/∂h₂"],
        ["∂ℓ/∂f₁", "∂ℓ/∂β₁", f"∂ℓ/∂{weight}₁", "∂ℓ/∂h₁"],
        ["∂ℓ/∂f₀", "∂ℓ/∂β₀", f"∂ℓ/∂{weight}₀"],
    ]
    return forward + [name for layer in backward for name in layer]


@both
def test_the_three_agree(network: LectureNetwork) -> None:
    rows = lecture_rows(network)
    assert [row.symbol for row in rows] == symbols("ω" if network is SCALAR else "Ω")
    for row in rows:
        np.testing.assert_allclose(row.pipeline, row.by_hand, rtol=1e-12, atol=1e-12, err_msg=row.symbol)
        assert (row.finite_difference is None) == (not row.symbol.startswith("∂"))
        if row.finite_difference is not None:
            for other in (row.pipeline, row.by_hand):
                np.testing.assert_allclose(row.finite_difference, other, rtol=1e-9, atol=1e-9, err_msg=row.symbol)
        assert row.agrees


def test_scalar_values_by_calculator() -> None:
    """The derivatives once more with only the standard library, each as one product of the chain rule."""
    f = [1.5]
    for beta, omega in ((0.5, -1.0), (1.0, 1.5), (-0.5, 2.0)):
        f.append(beta + omega * math.tanh(f[-1]))
    slopes = [1 - math.tanh(z) ** 2 for z in f[:3]]
    rows = {row.symbol: float(row.pipeline) for row in lecture_rows(SCALAR)}
    assert rows["f₃"] == pytest.approx(f[3], rel=1e-14)
    assert rows["∂ℓ/∂ω₀"] == pytest.approx(
        2 * (f[3] - 1.0) * 2.0 * slopes[2] * 1.5 * slopes[1] * -1.0 * slopes[0] * 0.5, rel=1e-13
    )


def test_matrix_values_by_pencil() -> None:
    rows = {row.symbol: row.pipeline.tolist() for row in lecture_rows(MATRIX)}
    assert rows["f₃"] == [[5.5, 2.5, 4.0], [-3.5, -0.5, -0.5]]
    assert rows["ℓ"] == 3.75
    assert rows["∂ℓ/∂f₃"] == [[1, -2, 2], [-1, 2, 1]]
    assert rows["∂ℓ/∂h₃"] == [[2, -4, 1], [-2, 4, -1], [3, -6, 3]]
    assert rows["∂ℓ/∂f₂"] == [[2, -4, 1], [-2, 4, -1], [0, 0, 3]]
    assert rows["∂ℓ/∂β₂"] == [-1, 1, 3]
    assert rows["∂ℓ/∂Ω₂"] == [[2, 1.5], [-2, -1.5], [3, 4.5]]
    assert rows["∂ℓ/∂Ω₀"] == [[1, 0], [-6, 8], [0.5, 2.5]]


def test_no_pre_activation_is_near_the_kink() -> None:
    values = forward_values(MATRIX)
    assert min(np.abs(values[name]).min() for name in ("f₀", "f₁", "f₂")) >= 0.5


def test_derivative_of_known_functions() -> None:
    assert derivative(math.exp) == pytest.approx(1.0, abs=1e-12)
    assert derivative(lambda x: math.sin(3 * x + 1)) == pytest.approx(3 * math.cos(1), abs=1e-11)
    assert derivative(lambda x: 2 + 5 * x - 7 * x**2 + x**5) == pytest.approx(5, abs=1e-12)


@both
def test_example_files_are_what_the_command_runs(network: LectureNetwork) -> None:
    job = load_job(EXAMPLES / f"{network.name}.yaml")
    own = network.job()
    source = str(EXAMPLES / own.data.source)
    assert job == own.replace(data__source=source, data__validation=source)
    data = load_data(job).train
    np.testing.assert_array_equal(data.x.T, network.x.reshape(-1, network.rows))
    np.testing.assert_array_equal(data.y.T, network.y.reshape(-1, network.rows))
    given = yaml.safe_load((EXAMPLES / "parameters.yaml").read_text("utf-8"))[network.name]
    assert given == {"beta": [b.tolist() for b in network.beta], "omega": [w.tolist() for w in network.omega]}


@both
def test_example_job_gives_the_gradients_of_the_table(network: LectureNetwork) -> None:
    """The workers of real runs, whose stages record nothing."""
    job = load_job(EXAMPLES / f"{network.name}.yaml")
    data = load_data(job).train
    workers = LocalWorkers(make_blueprint(job, len(data)), train=data, parameters=network.parameters())
    try:
        workers.submit([TrainStep(step=1, epoch_index=0, first=0, last=len(data))]).collect()
        gradients = gather(workers, "gradients")
    finally:
        workers.close()
    hand, weight = by_hand(network), "ω" if network is SCALAR else "Ω"
    assert len(gradients) == 8
    for k in range(4):
        for name, expected in (
            (f"{2 * k}.bias", hand[f"∂ℓ/∂β{'₀₁₂₃'[k]}"]),
            (f"{2 * k}.weight", hand[f"∂ℓ/∂{weight}{'₀₁₂₃'[k]}"]),
        ):
            np.testing.assert_allclose(gradients[name].ravel(), np.ravel(expected), rtol=1e-12, atol=1e-12)


def test_micro_batches_and_order_do_not_show() -> None:
    for count in (1, 2, 3):
        for seed in (0, 1, 2):
            values = pipeline_values(MATRIX, MATRIX.job().replace(training__micro_batches=count, seed=seed))
            assert all(row.agrees for row in lecture_rows(MATRIX, values))


def test_a_failing_worker_is_named_and_nothing_hangs() -> None:
    with pytest.raises(NonFinite, match="stage 0"):
        pipeline_values(replace(SCALAR, x=np.array(np.inf)))


@pytest.mark.parametrize(("wrong", "agrees"), [(1e-13, True), (1e-11, False), (math.nan, False)])
def test_a_wrong_value_is_noticed(wrong: float, agrees: bool) -> None:
    values = pipeline_values(MATRIX)
    values["∂ℓ/∂f₂"] = values["∂ℓ/∂f₂"] + wrong
    rows = {row.symbol: row.agrees for row in lecture_rows(MATRIX, values)}
    assert rows.pop("∂ℓ/∂f₂") is agrees
    assert all(rows.values())


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(command.lecture, arguments, standalone_mode=False)
    assert result.exception is None, result.exception
    code: Any = result.return_value
    return code, result.stdout


def test_json_has_every_symbol() -> None:
    code, output = run("--json")
    document = json.loads(output)
    assert code == 0
    assert document["agrees"] is True
    assert [network["name"] for network in document["networks"]] == ["scalar", "matrix"]
    for network, weight in zip(document["networks"], "ωΩ", strict=True):
        assert [row["symbol"] for row in network["rows"]] == symbols(weight)
        assert list(network["parameters"]) == [f"{letter}{k}" for letter in ("β", weight) for k in "₀₁₂₃"]
        for row in network["rows"]:
            assert row["agrees"] is True
            assert np.shape(row["pipeline"]) == np.shape(row["by_hand"])
            if row["finite_difference"] is not None:
                np.testing.assert_allclose(row["finite_difference"], row["pipeline"], rtol=1e-9, atol=1e-9)


@both
def test_table_has_every_symbol_and_formula(network: LectureNetwork) -> None:
    code, output = run("--network", network.name)
    assert code == 0
    for row in lecture_rows(network):
        assert any(row.symbol in line and row.formula in line for line in output.splitlines())
    assert "All 23 agree" in output
    assert "…│" not in output
    assert f"The {network.name} network" in output


def test_disagreement_is_named_and_exits_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    values = pipeline_values(SCALAR)
    values["h₂"] = values["h₂"] * 1.001
    monkeypatch.setattr(command, "lecture_rows", lambda network: lecture_rows(network, values))
    code, output = run("--network", "scalar")
    assert code == 1
    assert "h₂ DISAGREE: " in output
    assert json.loads(run("--network", "scalar", "--json")[1])["agrees"] is False
