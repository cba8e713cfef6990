"""`plan`'s figures for two small jobs; the comments work them out by hand."""

from __future__ import annotations

from typing import Any

from coordinator.job.spec import JobSpec, parse_job
from coordinator.plan.blueprint import make_blueprint
from coordinator.plan.estimate import Estimate, estimate
from coordinator.texts import size


def _job(layers: list[Any], features: int, training: dict[str, Any], pipeline: dict[str, Any], **more: Any) -> JobSpec:
    return parse_job(
        {
            "model": {"input": [features], "layers": layers, "loss": "sum_of_squares"},
            "data": {"source": "digits"},  # not read
            "training": {"epochs": 1, **training},
            "pipeline": pipeline,
            **more,
        }
    )


def _two_stages() -> JobSpec:
    """float32; 3 → 4, ReLU | 4 → 2; a batch of 8 rows as two micro-batches of 4, all forwards before all backwards."""
    return _job(
        [{"linear": {"units": 4}}, "relu", {"linear": {"units": 2}}], 3,
        {
            "batch_size": 8, "micro_batches": 2, "evaluate_batch_size": 2,
            "optimizer": {"sgd": {"learning_rate": 0.1, "momentum": 0.9}},
        },
        {"stages": 2, "schedule": "gpipe", "partition": [2, 1]},
    )  # fmt: skip


def _plan(spec: JobSpec, rows: int, data_bytes: int = 1000, validation_rows: int = 0) -> Estimate:
    return estimate(make_blueprint(spec, rows), data_bytes=data_bytes, validation_rows=validation_rows)


def test_a_job_of_two_stages_with_momentum() -> None:
    plan = _plan(_two_stages(), 8, validation_rows=6)
    first, second = plan.stages
    assert (first.layers, second.layers) == (range(2), range(2, 3))
    assert (first.parameters, second.parameters) == (4 * 3 + 4, 2 * 4 + 2)
    # multiplications and additions count; the first layer has F and W, the other F, I and W; times 8 rows
    assert first.flops == 2 * (3 * 4) * 2 * 8
    assert second.flops == 2 * (4 * 2) * 3 * 8
    # every weight and bias begins on a cache line of 64 bytes, and each of these is shorter than one
    for stage in plan.stages:
        assert stage.memory.weights == stage.memory.gradients == stage.memory.optimizer == 2 * 64
    # kept for both micro-batches: the input of each linear layer, and the output of ReLU
    assert first.memory.saved == (3 + 4) * 8 * 4
    assert second.memory.saved == 4 * 8 * 4
    # buffers: two inputs; two outputs of ReLU and the gradient that comes back
    assert first.memory.pool == (2 * 3 + 3 * 4) * 4 * 4
    # two inputs and the gradient that is sent back; one output, whose place the gradient of the loss takes
    assert second.memory.pool == (3 * 4 + 2) * 4 * 4

    array = 4 * 4 * 4  # bytes of 4 features by 4 rows: the array that is sent between the two
    links = 2 * 4096  # a page each way, where both gradients have room that wait for worker 0
    assert plan.workers[0].message_bytes == links + array, "and the copy that it received last"
    # ∂ℓ/∂f of both micro-batches (2 by 4) wait
    assert plan.workers[1].message_bytes == links + 2 * 2 * 4 * 4 + array
    for worker, stage in zip(plan.workers, plan.stages, strict=True):
        assert worker.stages_bytes == 3 * 128 + stage.memory.pool
        assert worker.data_bytes == 1000
        assert worker.total == worker.stages_bytes + worker.message_bytes + 1000
    assert plan.bottleneck == 0
    assert plan.refusals == ()


def test_a_job_of_three_stages_in_float64_without_biases_and_momentum() -> None:
    """2 → 3 | 3 → 3 | 3 → 1 with bias; a single micro-batch of 4 rows."""
    spec = _job(
        [{"linear": {"units": 3, "bias": False}}, {"linear": {"units": 3, "bias": False}}, {"linear": {"units": 1}}], 2,
        {"batch_size": 4, "micro_batches": 1, "optimizer": {"sgd": {"learning_rate": 0.1}}},
        {"stages": 3, "partition": [1, 1, 1]},
        precision="float64",
    )  # fmt: skip
    plan = _plan(spec, 4, data_bytes=77)
    assert [stage.parameters for stage in plan.stages] == [6, 9, 4]
    assert [stage.flops for stage in plan.stages] == [2 * 6 * 2 * 4, 2 * 9 * 3 * 4, 2 * 3 * 3 * 4]
    assert [stage.memory.weights for stage in plan.stages] == [64, 128, 64 + 64]  # 48, 72, 24 and 8 bytes
    assert [stage.memory.optimizer for stage in plan.stages] == [0, 0, 0]
    assert [stage.memory.saved for stage in plan.stages] == [2 * 4 * 8, 3 * 4 * 8, 3 * 4 * 8]
    # input and output; input, then both gradients; input, output and the gradient that is sent back
    assert [stage.memory.pool for stage in plan.stages] == [(2 + 3) * 32, (3 + 3 + 3) * 32, (3 + 1 + 3) * 32]
    # a page for each link, the array of 3 by 4 that was received last, and ∂ℓ/∂f of the loss, 1 by 4
    received = 3 * 4 * 8
    assert [worker.message_bytes for worker in plan.workers] == [
        2 * 4096 + received, 4 * 4096 + received, 2 * 4096 + received + 4 * 8
    ]  # fmt: skip
    assert [worker.data_bytes for worker in plan.workers] == [77, 0, 77], "only the ends of the pipeline read rows"


def test_a_limit_is_kept_to_the_byte() -> None:
    spec = _two_stages()
    needed = max(worker.total for worker in _plan(spec, 8).workers)
    assert _plan(spec.replace(resources__memory_per_worker=needed), 8).refusals == ()
    refusal, other = _plan(spec.replace(resources__memory_per_worker=needed - 1), 8).refusals
    assert other.startswith("worker 1 (stage 1) needs "), "by chance it needs as much"
    assert refusal.startswith(f"worker 0 (stage 0) needs {size(needed, 'up')}, resources.memory_per_worker is ")
    assert refusal.endswith("more stages, more micro-batches or more memory help")


def test_a_large_evaluation_counts_where_it_needs_more_than_a_step() -> None:
    spec = _two_stages().replace(training__evaluate_batch_size=50)
    first, second = _plan(spec, 8, validation_rows=60).stages
    assert (first.memory.pool, second.memory.pool) == ((3 + 4) * 50 * 4, (4 + 2) * 50 * 4)
    assert _plan(spec, 8, validation_rows=0).stages == _plan(_two_stages(), 8).stages
