"""What a worker does with orders after a failure."""

from __future__ import annotations

import numpy as np

from stages.actions import Action
from stages.channel import LocalExchange
from stages.data import Dataset
from stages.layers import entry
from stages.orders import Fault, Order, TrainStep, Update, WorkerSetup
from stages.spec import ModelSpec, SgdSpec
from stages.worker import Worker


def test_orders_behind_a_failure_are_not_performed_and_have_no_failure_of_their_own() -> None:
    """Such orders build on the failed step: if performed, they end with an AssertionError about its micro-batches."""
    model = ModelSpec(input_shape=(3,), layers=(entry("linear", units=2),), loss="mse", seed=1)
    lane = tuple(map(Action.parse, ("0F0", "0F1", "0B0", "0B1")))
    setup = WorkerSetup(
        worker=0,
        model=model,
        optimizer=SgdSpec(learning_rate=0.1),
        bounds=(0, 1),
        placement=(0,),
        lanes={2: lane},
        micro_batches=2,
        faults=(Fault(step=1, action="0F1", what="nan"),),
    )
    rows = Dataset(x=np.ones((4, 3), np.float32), y=np.ones((4, 2), np.float32))
    worker = Worker(setup, LocalExchange(1.0), train=rows)
    orders: list[list[Order]] = [[TrainStep(step, 0, 0, 4), Update(step, 0.1)] for step in (1, 2, 3)]
    first, *behind = [worker.run(two) for two in orders]
    assert first.failure is not None
    assert (first.failure.kind, first.failure.step, str(first.failure.action)) == ("non_finite", 1, "0F1")
    for result in behind:
        assert result.reports == ()
        assert result.failure is first.failure
