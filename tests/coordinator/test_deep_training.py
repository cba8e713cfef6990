"""A transformer: the same bits for all schedules, cuts inside blocks, recomputation and ties; and torch's
trajectory."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import numpy as np
import pytest

from coordinator.job.spec import JobSpec, parse_job
from coordinator.plan.blueprint import make_blueprint
from coordinator.plan.estimate import estimate
from coordinator.timing.epoch_means import EpochMeans
from coordinator.train.local import LocalWorkers
from coordinator.train.parity import compare, train_pipeline
from coordinator.train.reference import Trained, train_reference
from coordinator.train.rows import StepRow, take_row
from coordinator.train.trainer import Trainer
from stages.actions import Kind
from stages.data import Dataset, epoch_order
from stages.stage import Stage
from stages.windows import Windows
from stages.worker import Worker
from stages.worker_memory import worker_memory
from tests.stages.torch_transformer import torch_network

VOCABULARY, POSITIONS = 17, 6
TOKENS = np.random.default_rng(0).integers(0, VOCABULARY, 200).astype(np.uint16)
DATA = Dataset(x=Windows(TOKENS, POSITIONS, 1), y=Windows(TOKENS, POSITIONS, 1, shift=1))


def _job(precision: str = "float32", dropout: float = 0.1, **pipeline: Any) -> JobSpec:
    return parse_job(
        {
            "seed": 5,
            "precision": precision,
            "model": {
                "input": [POSITIONS],
                "vocabulary": VOCABULARY,
                "layers": [
                    {"embedding": {"units": 12}},
                    "positions",
                    {"transformer": {"heads": 3, "times": 2, "dropout": dropout, "bias": False}},
                    "layer_norm",
                    {"linear": {"units": VOCABULARY, "bias": False, "tied_to": 0}},
                ],
                "loss": "cross_entropy",
                "init": {"std": 0.5, "scale_residual": True},
            },
            "data": {"source": "stdlib", "block": POSITIONS},  # not read: the tests give the rows
            "training": {
                "steps": 30,
                "batch_size": 5,
                "micro_batches": 3,
                "optimizer": {"adamw": {"learning_rate": 1e-2, "betas": [0.9, 0.99], "weight_decay": 0.1}},
                "schedule": {"cosine": {"warmup": 4, "min_rate": 1e-3}},
                "clip_norm": 1.0,
            },
            "pipeline": pipeline,
        }
    )


@pytest.mark.parametrize("recompute", ["none", "full"])
@pytest.mark.parametrize("stages", [1, 2, 3, 5])
@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "interleaved-1f1b", "zb-h1", "zb-h2", "zbv", "v-half", "v-min"])
def test_weights_are_bitwise_those_of_one_process(schedule: str, stages: int, recompute: str) -> None:
    spec = _job(stages=stages, schedule=schedule, recompute=recompute)
    blueprint = make_blueprint(spec, len(DATA))
    with contextlib.closing(LocalWorkers(blueprint, train=DATA)) as workers:
        found = train_pipeline(blueprint, workers, DATA, 3)
    assert compare(found, _of_one_process()).equal


@functools.cache
def _of_one_process() -> Trained:
    return train_reference(_job(), DATA, 3)


SMOOTHED = {"cross_entropy": {"ignore_index": 3, "label_smoothing": 0.1}}


@pytest.mark.parametrize("loss", [SMOOTHED, {"cross_entropy": {"ignore_index": 0}}], ids=str)
@pytest.mark.parametrize(("schedule", "stages"), [("gpipe", 3), ("zb-h1", 2), ("interleaved-1f1b", 5)])
def test_ignored_tokens_are_counted_over_the_whole_batch(schedule: str, stages: int, loss: Any) -> None:
    """Some micro-batches have more tokens that do not count than others."""

    def job(**pipeline: Any) -> JobSpec:
        return _job(**pipeline).replace(model__loss=loss)

    spec = job(stages=stages, schedule=schedule)
    blueprint = make_blueprint(spec, len(DATA))
    with contextlib.closing(LocalWorkers(blueprint, train=DATA, validation=DATA)) as workers:
        found = train_pipeline(blueprint, workers, DATA, 3)
    assert compare(found, train_reference(job(), DATA, 3)).equal


@pytest.mark.parametrize("micro_batches", [1, 2, 5])
def test_a_loss_that_ignores_tokens_does_not_depend_on_how_a_batch_is_cut(micro_batches: int) -> None:
    spec = _job("float64", dropout=0.0).replace(model__loss=SMOOTHED)
    found = train_reference(spec.replace(training__micro_batches=micro_batches), DATA, 5)
    expected = train_reference(spec, DATA, 5)
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-12)
    for name, value in expected.parameters.items():
        np.testing.assert_allclose(found.parameters[name], value, rtol=1e-9, atol=1e-12, err_msg=name)


def test_rows_tell_how_many_tokens_counted() -> None:
    """The losses of a step, of an epoch and of an evaluation are means over the tokens that count."""
    spec = _job("float64", dropout=0.0).replace(model__loss=SMOOTHED, training__steps=2, training__evaluate_every=2)
    blueprint = make_blueprint(spec, len(DATA))
    with contextlib.closing(LocalWorkers(blueprint, train=DATA, validation=DATA)) as workers:
        *steps, evaluation = Trainer(blueprint, workers, train_rows=len(DATA), validation_rows=len(DATA)).rows()
    order = epoch_order(spec.seed, 0, len(DATA))
    counted = [int((DATA.y[order[a : a + 5]] != 3).sum()) for a in (0, 5)]
    assert [step.counted for step in steps] == counted
    assert all(0 < n < 5 * POSITIONS for n in counted)
    assert evaluation.counted == int((DATA.y[:] != 3).sum())
    means = EpochMeans()
    for step in steps:
        assert isinstance(step, StepRow)
        take_row(means, step)
    assert means.loss == pytest.approx(np.average([step.loss for step in steps], weights=counted), rel=1e-15)


@pytest.mark.parametrize("stages", [1, 2])
def test_a_tied_weight_in_one_process_is_neither_sent_nor_copied(stages: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Kind] = []
    send = Worker.send

    def recording_send(self: Worker, stage: int, kind: Kind, *rest: Any) -> None:
        sent.append(kind)
        send(self, stage, kind, *rest)

    monkeypatch.setattr(Worker, "send", recording_send)
    spec = _job(stages=stages, workers=1, schedule="interleaved-1f1b")
    blueprint = make_blueprint(spec, len(DATA))
    with contextlib.closing(LocalWorkers(blueprint, train=DATA)) as workers:
        found = train_pipeline(blueprint, workers, DATA, 3)
    assert compare(found, train_reference(_job(), DATA, 3)).equal
    assert set(sent) == ({Kind.FORWARD, Kind.BACKWARD_INPUT} if stages == 2 else set())


def test_a_cut_behind_every_operation_changes_nothing() -> None:
    n = len(_job().model_spec().network.ops)
    spec = _job(stages=n, partition=[1] * n, schedule="1f1b")
    blueprint = make_blueprint(spec, len(DATA))
    with contextlib.closing(LocalWorkers(blueprint, train=DATA)) as workers:
        found = train_pipeline(blueprint, workers, DATA, 2)
    assert compare(found, train_reference(_job(), DATA, 2)).equal


def test_the_trajectory_is_torch_s() -> None:
    """Twenty steps of AdamW with warm-up, cosine, clipping and a tied head, in float64."""
    torch = pytest.importorskip("torch", reason="torch is not installed (pip install 'pipetrain[benchmark]')")
    spec = _job("float64", dropout=0.0)
    model = spec.model_spec()
    start = Stage(model, 0, len(model.network.ops), spec.optimizer()).parameters
    theirs = torch_network(model).double()
    theirs[-1].weight = theirs[0].weight
    values = {name: torch.from_numpy(value) for name, value in start.named(start.values).items()}
    theirs.load_state_dict({**values, "4.weight": values["0.weight"]})
    own = dict(theirs.named_parameters())
    groups = [
        {"params": [p for p in own.values() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in own.values() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.99))
    order, losses = epoch_order(spec.seed, 0, len(DATA)), []
    for step in range(1, 21):
        rows = order[(step - 1) * 5 : step * 5]
        x, y = (torch.from_numpy(part[rows].astype(np.int64)) for part in (DATA.x, DATA.y))
        loss = torch.nn.functional.cross_entropy(theirs(x).reshape(-1, VOCABULARY), y.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(own.values(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = spec.training.rates(len(DATA))(step)
        optimizer.step()
        losses.append(loss.item())
    found = train_reference(spec, DATA, 20)
    np.testing.assert_allclose(found.losses, losses, rtol=1e-9)
    for name, value in found.parameters.items():
        np.testing.assert_allclose(value, own[name].detach().numpy(), rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("recompute", ["none", "full"])
def test_memory_is_predicted_as_it_is_held(recompute: str) -> None:
    spec = _job(stages=3, schedule="1f1b", recompute=recompute)
    blueprint = make_blueprint(spec, len(DATA))
    plan = estimate(blueprint, data_bytes=0, validation_rows=1)
    with contextlib.closing(LocalWorkers(blueprint, train=DATA)) as workers:
        train_pipeline(blueprint, workers, DATA, 2)
        for worker in workers._workers:
            held = worker_memory(worker.stages, 0).held
            for s, stage in worker.stages.items():
                memory = plan.stages[s].memory
                assert memory.saved == stage.peak_saved_bytes
                assert memory.pool == stage.buffers.held_bytes
                assert (memory.weights, memory.gradients, memory.optimizer) == held[s]


def test_the_peak_of_memory_of_zb_h1_does_not_grow_with_micro_batches() -> None:
    peaks = set()
    for m in (3, 6, 12):
        spec = _job(stages=3, schedule="zb-h1").replace(training__micro_batches=m, training__batch_size=2 * m)
        blueprint = make_blueprint(spec, len(DATA))
        assert blueprint.program.n_micro_batches == m
        with contextlib.closing(LocalWorkers(blueprint, train=DATA)) as workers:
            train_pipeline(blueprint, workers, DATA, 2)
            stages = [stage for worker in workers._workers for stage in worker.stages.values()]
            peaks.add(tuple((stage.peak_saved_bytes, stage.buffers.held_bytes) for stage in stages))
    assert len(peaks) == 1, peaks
