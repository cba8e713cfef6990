"""Warnings that a network learns nothing: each from a small training run that has the fault, and none from healthy
ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.data import array_files
from cluster.data.measure import measure
from cluster.data.sources import JobData, load_data
from cluster.run.run_dir import RunDir
from cluster.run.training import Run, Where
from coordinator.job.spec import load_job, parse_job
from coordinator.learning.data_warnings import data_warnings
from coordinator.learning.warning import CODES
from stages.data import Dataset
from tests.examples import examples
from tests.jobs import EXAMPLES, pipetrain_here

Array = np.ndarray[Any, Any]
_LINEAR: tuple[Any, ...] = ({"linear": {"units": 8}}, "tanh", {"linear": {"units": 3}})


@dataclass(frozen=True)
class _Fault:
    """A job with a fault. `rows(rng)` returns x and y; `told` are words that the warning must have."""

    rows: Callable[[np.random.Generator], tuple[Array, Array]]
    told: Sequence[str]
    layers: Sequence[Any] = _LINEAR
    loss: str = "cross_entropy"
    rate: float = 0.1
    epochs: int = 3
    precision: str = "float32"
    held_out: Callable[[np.random.Generator], tuple[Array, Array]] | None = None


def _plain(rng: np.random.Generator, rows: int = 300, columns: int = 4) -> tuple[Array, Array]:
    """Three classes that a straight line separates."""
    x = rng.normal(size=(rows, columns))
    return x, (x[:, 0] > -0.4).astype(int) + (x[:, 0] > 0.4)


def _scaled(rng: np.random.Generator, scales: Sequence[float]) -> tuple[Array, Array]:
    x, y = _plain(rng)
    return x * scales, y


def _with(rng: np.random.Generator, change: Callable[[Array, Array], None]) -> tuple[Array, Array]:
    x, y = _plain(rng)
    change(x, y)
    return x, y


def _constant_column(x: Array, y: Array) -> None:
    x[:, 2] = 7


def _almost_one_class(rng: np.random.Generator) -> tuple[Array, Array]:
    x, y = _plain(rng, 1200)
    y[:] = 1
    y[:8] = [0, 2] * 4
    return x, y


def _first_rows(rng: np.random.Generator) -> tuple[Array, Array]:
    x, y = _plain(rng)
    return x[:60], y[:60]


def _class_three(x: Array, y: Array) -> None:
    x += 1
    y[0] = 3


def _noise(rng: np.random.Generator) -> tuple[Array, Array]:
    """A target that the inputs do not determine: what is learnt of it is learnt by heart."""
    return rng.normal(size=(120, 10)), rng.normal(size=120)


def _quantity(rng: np.random.Generator) -> tuple[Array, Array]:
    x = rng.normal(size=(300, 4))
    return x, 2 * x[:, 0] - x[:, 1]


_ONE = ({"linear": {"units": 8}}, "tanh", {"linear": {"units": 1}})
_DEEP = (*[entry for _ in range(14) for entry in ({"linear": {"units": 8}}, "sigmoid")], {"linear": {"units": 3}})
_FAULTS = {
    "unscaled_inputs": _Fault(lambda rng: _scaled(rng, [4000, 0.3, 1, 1]), ["x[:, 0]", "about 3,9", "x[:, 1]", "0.2"]),
    "inputs_far_from_one": _Fault(lambda rng: _scaled(rng, [400] * 4), ["very large", "divide x"]),
    "constant_columns": _Fault(lambda rng: _with(rng, _constant_column), ["1 of 4 input columns has", "x[:, 2]"]),
    "one_class": _Fault(lambda rng: (_plain(rng)[0], np.ones(300, int)), ["all 240 training rows are of class 1"]),
    "unbalanced_classes": _Fault(
        _almost_one_class, ["% of the training rows are of class 1"], epochs=1
    ),
    "constant_target": _Fault(
        lambda rng: (_plain(rng)[0], np.full(300, 2.5)), ["y[:, 0] is 2.5"], layers=_ONE, loss="mse"
    ),
    "row_numbers": _Fault(
        lambda rng: (_plain(rng)[0], np.arange(300.0)), ["from 0 to 299"], layers=_ONE, loss="mse", rate=1e-6
    ),
    "many_classes": _Fault(
        lambda rng: (_plain(rng)[0], np.arange(300) // 3),
        ["240 training rows have", "classes", "model.loss: mse"],
        layers=(_LINEAR[0], "tanh", {"linear": {"units": 100}}),
    ),
    "unseen_classes": _Fault(
        _plain, ["1 validation row has a class", "(3)"],
        layers=(*_LINEAR[:2], {"linear": {"units": 4}}), held_out=lambda rng: _with(rng, _class_three),
    ),
    "repeated_rows": _Fault(
        _plain, ["60 of 60 validation rows"], held_out=_first_rows,
    ),
    "loss_of_constant": _Fault(
        _plain, ["steps 1 to 100, 1.279", "1.097, the loss of always giving the same"], rate=1e-9, epochs=14,
    ),
    "overfitting": _Fault(
        _noise, ["since step", "by heart"], layers=({"linear": {"units": 64}}, "relu", {"linear": {"units": 1}}),
        loss="mse", rate=0.05, epochs=60,
    ),
    "dead_units": _Fault(
        _plain,
        ["in layer 1 (relu)", "leaky_relu"],
        layers=({"linear": {"units": 8}}, "relu", {"linear": {"units": 3}}), rate=30.0, epochs=8,
    ),
    "exploding_gradients": _Fault(
        _quantity, ["gradient norm has grown", "clip_norm"], layers=({"linear": {"units": 1}},),
        loss="mse", rate=1.3, epochs=3, precision="float64",
    ),
    "vanishing_gradients": _Fault(_plain, ["almost no gradient reaches layer", "relu"], layers=_DEEP, epochs=12),
    "loss_jump": _Fault(
        _quantity, ["the loss jumped to", "in step"], layers=({"linear": {"units": 1}},), loss="mse", rate=1.3,
        precision="float64",
    ),
}  # fmt: skip


def test_every_code_has_its_run_and_its_explanation() -> None:
    assert set(_FAULTS) == set(CODES)
    page = (EXAMPLES.parent / "docs" / "warnings.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    assert sorted(code.strip(" `") for row in rows for code in row.split(",")) == sorted(CODES)


@pytest.mark.parametrize("code", list(_FAULTS))
def test_a_run_with_the_fault_warns_once_in_its_events_and_aloud(tmp_path: Path, code: str) -> None:
    fault = _FAULTS[code]
    x, y = fault.rows(np.random.default_rng(5))
    np.savez(tmp_path / "rows.npz", x=x, y=y)
    validation: Any = 0.2
    if fault.held_out is not None:
        x_held, y_held = fault.held_out(np.random.default_rng(5))
        np.savez(tmp_path / "held-out.npz", x=x_held, y=y_held)
        validation = str(tmp_path / "held-out.npz")
    said, events = _train(
        tmp_path,
        {
            "precision": fault.precision,
            "model": {"input": [x.shape[1]], "layers": list(fault.layers), "loss": fault.loss},
            "data": {"source": str(tmp_path / "rows.npz"), "validation": validation},
            "training": {
                "epochs": fault.epochs, "batch_size": 24, "micro_batches": 2,
                "optimizer": {"sgd": {"learning_rate": fault.rate}},
            },
            "pipeline": {"stages": 1},
        },
    )  # fmt: skip
    print(said)
    (event,) = [event for event in events if event["code"] == code]
    assert [line for line in said if event["detail"] in line] == [f"warning: {event['detail']}"]
    for words in fault.told:
        assert words in event["detail"]
    assert event["figures"]
    assert len(said) == len(set(said)) == len(events)


@pytest.mark.parametrize("validation", [0.2, 0])
def test_rows_that_stay_in_their_file_are_looked_at_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, validation: float
) -> None:
    monkeypatch.setattr(array_files, "LARGE", 1)
    x, y = _scaled(np.random.default_rng(5), [4000, 0.3, 1, 1])
    np.savez(tmp_path / "rows.npz", x=x, y=np.stack([y, y], axis=1))
    document = {
        "model": {"input": [4], "layers": [{"linear": {"units": 2}}], "loss": "mse"},
        "data": {"source": str(tmp_path / "rows.npz"), "validation": validation},
        "training": {"epochs": 1, "batch_size": 100, "optimizer": {"sgd": {"learning_rate": 1e-9}}},
        "pipeline": {"stages": 1},
    }
    assert not isinstance(load_data(parse_job(document)).train.x, np.ndarray), "else this tests nothing"
    said, _ = _train(tmp_path, document)
    assert [line[:36] for line in said] == ["warning: the inputs differ in size: "]


@pytest.mark.parametrize(
    ("example", "changes"),
    [
        ("digits", ["training.epochs=12"]),
        ("diabetes", []),
        ("char-gpt", ["training.steps=21", "training.evaluate_every=20", "data.validation=0.0002"]),
    ],
)
def test_a_healthy_run_does_not_warn(tmp_path: Path, example: str, changes: Sequence[str]) -> None:
    document = load_job(EXAMPLES / f"{example}.yaml", tuple(changes)).document()
    assert _train(tmp_path, {**document, "pipeline": {"stages": 1}, "resources": {}}) == ([], [])


@pytest.mark.parametrize("dataset", ["iris", "wine", "breast_cancer", "diabetes", "linnerud"])
def test_tables_that_others_train_on_do_not_warn(tmp_path: Path, dataset: str) -> None:
    from sklearn import datasets

    whole = getattr(datasets, f"load_{dataset}")()
    targets = np.atleast_2d(whole.target.T)
    names = [f"t{k}" for k in range(len(targets))] if len(targets) > 1 else ["y"]
    rows = np.column_stack([whole.data, *targets])
    header = ",".join([*(f"x{k}" for k in range(whole.data.shape[1])), *names])
    np.savetxt(tmp_path / "rows.csv", rows, delimiter=",", header=header, comments="", fmt="%.6g")
    classes = dataset in ("iris", "wine", "breast_cancer")
    outputs = len(set(whole.target)) if classes else len(targets)
    document = {
        "model": {
            "input": [whole.data.shape[1]],
            "layers": [{"linear": {"units": 16}}, "relu", {"linear": {"units": outputs}}],
            "loss": "cross_entropy" if classes else "mse",
        },
        "data": {"source": str(tmp_path / "rows.csv"), "target": names},
        "training": {
            "epochs": 20, "batch_size": 16, "micro_batches": 2, "optimizer": {"adam": {"learning_rate": 0.003}},
        },
        "pipeline": {"stages": 1},
    }  # fmt: skip
    assert _train(tmp_path, document) == ([], [])


def test_plan_and_train_tell_the_warnings_and_json_has_them(tmp_path: Path) -> None:
    x, y = _scaled(np.random.default_rng(5), [4000, 0.3, 1, 1])
    np.savez(tmp_path / "rows.npz", x=x, y=y)
    job = tmp_path / "job.yaml"
    job.write_text(
        "{model: {input: [4], layers: [{linear: {units: 3}}], loss: cross_entropy}, data: {source: rows.npz}, "
        "training: {epochs: 1, batch_size: 24, optimizer: {sgd: {learning_rate: 1.0e-6}}}, pipeline: {stages: 1}}"
    )
    line = "warning: the inputs differ in size: values of x[:, 0] are about "
    plan = pipetrain_here("plan", job, "--json")
    assert plan.stderr.startswith(line)
    assert [one["code"] for one in json.loads(plan.stdout)["warnings"]] == ["unscaled_inputs"]
    done = pipetrain_here("train", job, "--local", "--run-dir", tmp_path / "run", "--json")
    assert done.stderr.count(line) == 1
    (found,) = json.loads(done.stdout.splitlines()[-1])["warnings"]
    assert (found["code"], found["figures"]["largest"]) == ("unscaled_inputs", "x[:, 0]")


def test_a_jump_in_a_few_rows_is_chance(tmp_path: Path) -> None:
    """Steps of one row: the loss of a single one is a hundred times the others'."""
    x, y = _plain(np.random.default_rng(5))
    x = np.repeat(x[:, :1], 4, axis=1)
    x[7] *= 30
    y[7] = 2 - y[7]
    np.savez(tmp_path / "rows.npz", x=x, y=y)
    document = {
        "model": {"input": [4], "layers": [{"linear": {"units": 3}}], "loss": "cross_entropy"},
        "data": {"source": str(tmp_path / "rows.npz"), "validation": 0},
        "training": {"epochs": 2, "batch_size": 1, "optimizer": {"sgd": {"learning_rate": 0.05}}},
        "pipeline": {"stages": 1},
    }
    said, _ = _train(tmp_path, document)
    assert said == []
    losses = [json.loads(row)["loss"] for row in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert max(losses) > 50, "else this tests nothing"


@given(data=st.data())
@settings(max_examples=examples(60, 600), deadline=None)
def test_whatever_the_data_it_is_measured(data: st.DataObject) -> None:
    """A warning is no refusal: measuring raises nothing, and its warnings fit into an event."""
    rows, columns = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 4))
    numbers = st.sampled_from([0.0, 1.0, -1.0, 1e-30, 1e30, 3e38, 7.0, 1e-3, 4000.0])
    drawn = data.draw(st.lists(numbers, min_size=rows * columns, max_size=rows * columns))
    x: Array = np.array(drawn, dtype=np.float32)
    if data.draw(st.booleans()):
        x = x.astype(np.float64) ** 8
    loss = data.draw(st.sampled_from(["cross_entropy", "mse", "l1", "huber", "sum_of_squares", "binary_cross_entropy"]))
    labels = data.draw(st.lists(st.integers(0, 2), min_size=rows, max_size=rows))
    y = np.array(labels) if loss == "cross_entropy" else np.array(labels, dtype=np.float32)[:, None] / 2
    document = {
        "model": {"input": [columns], "layers": [{"linear": {"units": 3 if y.ndim == 1 else 1}}], "loss": loss},
        "data": {"source": "digits"},
        "training": {"epochs": 1, "batch_size": 1, "optimizer": {"sgd": {"learning_rate": 0.1}}},
    }
    both = Dataset(x=x.reshape(rows, columns), y=y)
    held = data.draw(st.integers(0, rows - 1))
    job = JobData(spec=parse_job(document), train=both.take(slice(held, None)), validation=both.take(slice(0, held)))
    facts = measure(job)
    warnings = data_warnings(facts)
    assert len({warning.code for warning in warnings}) == len(warnings)
    for warning in warnings:
        json.dumps(dict(warning.figures), allow_nan=False)
        assert len(warning.text.splitlines()) == 1
    assert facts.constant_loss is not None
    assert facts.constant_loss >= 0


def _train(folder: Path, document: Mapping[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
    """Train on local workers. Return what the run says, and its warnings among the events."""
    run = Run.prepare(parse_job({"name": "faulty", **document}), Where(local=True))
    directory = RunDir.create(folder / "run", run.spec)
    said: list[str] = []
    run.warn = said.append
    try:
        for _ in run.rows(directory):
            pass
    finally:
        directory.close()
    events = [json.loads(line) for line in (folder / "run" / "events.jsonl").read_text().splitlines()]
    return said, [event for event in events if event["event"] == "warning"]
