"""Why a run is slow: a case for each cause, and runs without a cause to report."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from coordinator.timing.slowness import why_slow

Shares = tuple[int, int, int, int, int]
"""Per cent of computing, waiting, sending, evaluating, and the rest."""


def told(workers: Sequence[Shares], predicted: float | None = None, cpus: int | None = None) -> str | None:
    times = [
        {
            "forward": compute // 2,
            "weight_gradient": compute - compute // 2,
            "wait_warmup": wait // 2,
            "wait_drain": wait - wait // 2,
            "send": send,
            "evaluation": evaluation,
            "other": rest,
        }
        for compute, wait, send, evaluation, rest in workers
    ]
    assert all(sum(row.values()) == 100 for row in times)
    stages = [(worker, worker + len(workers)) if worker == 1 else (worker,) for worker in range(len(workers))]
    return why_slow(times, stages, None if predicted is None else [predicted] * len(workers), cpus=cpus)


@pytest.mark.parametrize(
    ("workers", "predicted", "cpus", "text"),
    [
        (
            [(40, 50, 10, 0, 0)] * 4,
            0.1,
            2,
            "4 workers share 2 CPUs: use no more workers than CPUs, such as --stages 2",
        ),
        (
            [(90, 10, 0, 0, 0)] * 2,
            0.1,
            1,
            "2 workers share one CPU: use no more workers than CPUs, such as --stages 1",
        ),
        (
            [(50, 10, 0, 40, 0)] * 2,
            0.1,
            2,
            "evaluations take 40% of the time: evaluate less often (`training.evaluate_every`), or use fewer "
            "validation rows",
        ),
        (
            [(98, 1, 1, 0, 0), (30, 69, 1, 0, 0), (40, 59, 1, 0, 0)],
            0.4,
            8,
            "worker 0 computes 98% of the time, the others wait 64% of it: move a layer away from stage 0, or use "
            "`pipeline.partition: measured`",
        ),
        (
            [(20, 79, 1, 0, 0), (90, 9, 1, 0, 0)],
            None,
            None,
            "worker 1 computes 90% of the time, the other waits 79% of it: move a layer away from stages 1, 3, or use "
            "`pipeline.partition: measured`",
        ),
        (
            [(38, 60, 2, 0, 0)] * 4,
            0.58,
            None,
            "workers wait 62% of the time, and the schedule alone makes them wait 58%: use more "
            "`training.micro_batches`, fewer stages, or `pipeline.schedule: zb-h1`",
        ),
        (
            [(20, 55, 25, 0, 0)] * 4,
            0.1,
            4,
            "55% waiting, 25% sending: micro-batches are too small; raise `training.batch_size`, or use fewer "
            "`training.micro_batches`",
        ),
        (
            [(50, 48, 2, 0, 0)] * 2,
            0.1,
            2,
            "workers wait 50% of the time, 10% by the schedule alone: use larger micro-batches or fewer stages, and "
            "look whether other programs take the CPUs",
        ),
        (
            [(50, 48, 2, 0, 0)] * 2,
            None,
            None,
            "workers wait 50% of the time: use larger micro-batches or fewer stages, and look whether other programs "
            "take the CPUs",
        ),
        (
            [(60, 0, 0, 0, 40)],
            0.0,
            2,
            "40% of the time passes between steps: they are too short; raise `training.batch_size`",
        ),
    ],
)
def test_each_cause_has_its_sentence(
    workers: list[Shares], predicted: float | None, cpus: int | None, text: str
) -> None:
    assert told(workers, predicted, cpus) == text


@pytest.mark.parametrize(
    ("workers", "predicted"),
    [
        ([(85, 10, 5, 0, 0)] * 4, 0.1),
        ([(95, 0, 0, 5, 0)], 0.0),
        ([(76, 20, 4, 0, 0), (90, 8, 2, 0, 0)], None),
    ],
)
def test_of_a_run_that_computes_there_is_nothing_to_say(workers: list[Shares], predicted: float | None) -> None:
    assert told(workers, predicted, cpus=8) is None


def test_before_time_has_passed_there_is_nothing_to_say() -> None:
    assert why_slow([], [], None) is None
    assert why_slow([{"forward": 0}], [(0,)], None, cpus=0) is None
