"""`model.freeze`: frozen parameters keep every bit, all others are trained as ever, and nothing is computed in vain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from coordinator.job.spec import JobSpec, parse_job
from coordinator.plan.blueprint import make_blueprint
from coordinator.plan.estimate import estimate
from coordinator.schedules import SCHEDULES
from coordinator.train.local import LocalWorkers
from coordinator.train.parity import compare, train_pipeline
from coordinator.train.reference import Trained, train_reference
from stages.actions import Kind
from stages.data import Dataset
from stages.errors import InvalidJob
from stages.orders import StepReport, TrainStep
from stages.stage import Stage
from tests.cluster.test_resume import go_on, results, train
from tests.cluster.test_resume import gpt as gpt_job
from tests.jobs import digits_job

STEPS = 3
OPTIMIZERS: list[dict[str, Any]] = [
    {"adamw": {"learning_rate": 0.01, "weight_decay": 0.1, "decay_vectors": True}},
    {"sgd": {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.1}},
    {"lion": {"learning_rate": 0.01, "weight_decay": 0.1}},
]


def flat(freeze: list[Any], *, optimizer: dict[str, Any] = OPTIMIZERS[0], **training: Any) -> JobSpec:
    document = digits_job(stages=1).document()
    document["model"]["freeze"] = freeze
    document["training"] |= {"optimizer": optimizer, **training}
    return parse_job(document)


def deep(freeze: list[Any]) -> JobSpec:
    """A tied weight, transformer blocks, and a bias at the use of the tied weight."""
    return parse_job(
        {
            "model": {
                "input": [4],
                "vocabulary": 11,
                "layers": [
                    {"embedding": {"units": 6}},
                    "positions",
                    {"transformer": {"heads": 2, "times": 2}},
                    {"linear": {"units": 11, "tied_to": 0}},
                ],
                "loss": "cross_entropy",
                "freeze": freeze,
            },
            "data": {"source": "tokens.npy", "block": 4},
            "training": {
                "steps": STEPS,
                "batch_size": 8,
                "micro_batches": 3,
                "optimizer": OPTIMIZERS[0],
                "clip_norm": 0.1,
            },
        }
    )


def data_of(spec: JobSpec) -> Dataset:
    random = np.random.default_rng(5)
    if spec.model.vocabulary:
        return Dataset(x=random.integers(0, 11, (16, 4)), y=random.integers(0, 11, (16, 4)))
    return Dataset(x=random.normal(size=(16, 64)).astype("f4"), y=random.integers(0, 10, 16))


def piped(spec: JobSpec, data: Dataset, stages: int, schedule: str) -> Trained:
    blueprint = make_blueprint(spec.replace(stages=stages, schedule=schedule), len(data))
    workers = LocalWorkers(blueprint, train=data, validation=data)
    try:
        return train_pipeline(blueprint, workers, data, STEPS)
    finally:
        workers.close()


FLAT: list[list[Any]] = [[0], [2], [4], [0, 2], ["0.weight", "4.bias"]]
DEEP: list[list[Any]] = [[0], [1, 2], ["2.1"], ["2.0.1.0.bias", 0, "3"], [0, 1]]


@pytest.mark.parametrize("freeze", FLAT, ids=str)
def test_frozen_parameters_keep_every_bit_whatever_the_optimizer(freeze: list[Any]) -> None:
    for optimizer in OPTIMIZERS:
        spec = flat(freeze, optimizer=optimizer, batch_size=16, micro_batches=4)
        frozen = spec.model_spec().network.frozen
        assert frozen
        first = Stage(spec.model_spec(), 0, 5, spec.optimizer()).parameters
        after = train_reference(spec, data_of(spec), STEPS).parameters
        for name, before in first.named(first.values).items():
            assert np.array_equal(after[name], before) == (name in frozen), name


def test_what_is_not_frozen_is_trained_as_ever() -> None:
    """The first update is bitwise that of the job without `freeze`: no gradient depends on what is frozen."""
    free, held = flat([], batch_size=16), flat([2, "0.bias"], batch_size=16)
    a, b = (train_reference(spec, data_of(spec), 1) for spec in (free, held))
    assert a.losses == b.losses
    for name, value in a.parameters.items():
        assert np.array_equal(value, b.parameters[name]) == (name not in held.model_spec().network.frozen)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    "spec", [*(flat(one) for one in FLAT[:4]), *(deep(one) for one in DEEP)], ids=lambda spec: str(spec.model.freeze)
)
def test_every_schedule_and_cut_is_bitwise_the_reference(spec: JobSpec, schedule: str) -> None:
    data = data_of(spec)
    m = 6 if schedule == "dualpipev" else 3  # it needs two micro-batches for each of its workers
    spec = spec.replace(training__batch_size=8, training__micro_batches=m)
    expected = train_reference(spec, data, STEPS)
    for stages in (2, 5):
        found = compare(piped(spec, data, stages, schedule), expected)
        assert found.equal, f"{stages} stages: {found.worst}"


def test_the_norm_that_clips_is_that_of_the_trained_parameters() -> None:
    spec = flat([0], batch_size=16, micro_batches=1, clip_norm=1e-3, optimizer={"sgd": {"learning_rate": 1.0}})
    before = Stage(spec.model_spec(), 0, 5, spec.optimizer()).parameters
    after = train_reference(spec, data_of(spec), 1).parameters
    moved = sum(float(np.sum((after[name] - value) ** 2)) for name, value in before.named(before.values).items())
    assert np.sqrt(moved) == pytest.approx(1e-3, rel=1e-2)


def test_no_gradient_is_computed_below_the_lowest_trained_layer() -> None:
    spec = flat([0, 2]).replace(stages=3, partition=[2, 2, 1], training__micro_batches=4)
    blueprint = make_blueprint(spec, 1438)
    assert blueprint.first_trained == 2
    data = data_of(spec)
    workers = LocalWorkers(blueprint, train=data, validation=data)
    try:
        orders = [TrainStep(step=1, epoch_index=0, first=0, last=16, trace=True)]
        reports = [one for (one,) in workers.submit(orders).collect() if isinstance(one, StepReport)]
        done = [action for report in reports for action, _, _ in report.timeline]
        assert {action.kind for action in done if action.stage < 2} == {Kind.FORWARD}
        assert {action.kind for action in done if action.stage == 2} > {Kind.FORWARD}
    finally:
        workers.close()


def test_the_plan_counts_no_vectors_for_frozen_parameters() -> None:
    for spec in (flat([0]), flat([2, "0.bias"]), deep([0]), deep(["2.1"])):
        spec = spec.replace(stages=2, training__micro_batches=2)
        blueprint = make_blueprint(spec, 16)
        planned = [stage.memory.optimizer for stage in estimate(blueprint, data_bytes=0, validation_rows=0).stages]
        model, bounds = spec.model_spec(), blueprint.bounds
        held = [Stage(model, bounds[s], bounds[s + 1], spec.optimizer()) for s in range(2)]
        assert planned == [stage.optimizer.nbytes for stage in held]
        assert sum(planned) < sum(stage.parameters.values.nbytes * 2 for stage in held)


def test_a_run_with_frozen_layers_goes_on_at_another_cut(tmp_path: Path) -> None:
    document = gpt_job(tmp_path).document()
    document["model"]["freeze"] = ["0", "2.0"]
    spec = parse_job(document)
    train(tmp_path / "whole", spec.replace(stages=1, schedule="gpipe"))
    train(tmp_path / "cut", spec, stop_at=9)
    go_on(tmp_path / "cut", stages=4, schedule="zb-h2")
    assert results(tmp_path / "cut") == results(tmp_path / "whole")
    saved = load_file(next((tmp_path / "cut" / "checkpoints").glob("step-00000030/layer-0.safetensors")))
    assert [*saved] == ["0.weight"]


@pytest.mark.parametrize(
    ("spec", "freeze", "line"),
    [
        (
            flat,
            ["4.wieght"],
            "model.freeze[0]: got '4.wieght', must be the path of a layer or parameter with weights",
        ),
        (flat, [0, 1], "model.freeze[1]: got 1, must be the path of a layer or parameter with weights"),
        (flat, ["0."], "model.freeze[0]: got '0.', must be the path"),
        (flat, [0, 2, 4], "model.freeze: it names every parameter, so there is nothing to train; leave some out"),
        (flat, [4.1], "model.freeze: got [4.1], must be a list of layers or parameters"),
        (flat, "0", "model.freeze: got '0', must be a list of layers or parameters"),
        (deep, ["3.weight"], "3.weight is tied to layer 0: freeze that"),
    ],
)
def test_a_path_that_names_nothing_is_a_problem_of_the_job(spec: Any, freeze: Any, line: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        spec(freeze)
    (problem,) = caught.value.problems
    assert line in problem


def test_the_nearest_path_is_offered() -> None:
    with pytest.raises(InvalidJob, match=r"did you mean 4\.weight\?"):
        flat(["4.wieght"])
    with pytest.raises(InvalidJob, match=r"did you mean 2\.1\.0\.1\.2\?"):
        deep(["2.1.1.22"])


def test_a_job_without_freeze_reads_as_before() -> None:
    assert "freeze" not in digits_job().document()["model"]
    spec = flat([0, "2.bias"])
    assert parse_job(spec.document()) == spec
    assert spec.document()["model"]["freeze"] == ["0", "2.bias"]
