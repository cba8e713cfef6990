"""Orders and reports between the coordinator and workers."""

from __future__ import annotations

import pickle
import sys
from typing import Any

import numpy as np

from cluster.actors.packing import pack_orders, pack_result, unpack_orders, unpack_result
from stages.actions import Action
from stages.channel import LocalExchange
from stages.data import Dataset
from stages.layers import entry
from stages.orders import Evaluate, Failure, Gather, Order, Result, Settle, StepReport, TrainStep, Update, WorkerSetup
from stages.spec import ModelSpec, SgdSpec
from stages.worker import Worker


def _worker() -> Worker:
    model = ModelSpec(input_shape=(3,), layers=(entry("linear", units=2),), loss="mse", seed=1)
    lane = tuple(map(Action.parse, ("0F0", "0F1", "0B0", "0B1")))
    setup = WorkerSetup(
        worker=0, model=model, optimizer=SgdSpec(learning_rate=0.1), bounds=(0, 1), placement=(0,),
        lanes={2: lane}, micro_batches=2,
    )  # fmt: skip
    rows = Dataset(x=np.ones((4, 3), np.float32), y=np.ones((4, 2), np.float32))
    return Worker(setup, LocalExchange(1.0), train=rows, validation=rows)


_ORDERS: tuple[Order, ...] = (
    TrainStep(1, 0, 0, 4, trace=True, look=True),
    Update(1, 0.1),
    Evaluate("validation", 4, 2),
    Settle(),
)


def test_orders_and_reports_come_as_they_were_sent() -> None:
    assert unpack_orders(pack_orders(_ORDERS)) == _ORDERS
    result = _worker().run(_ORDERS)
    packed = pack_result(_ORDERS, result)
    assert isinstance(packed, bytes)
    found = unpack_result(packed)
    assert [type(report) for report in found.reports] == [type(report) for report in result.reports]
    assert isinstance(found.reports[0], StepReport)
    assert found.reports[:2] == result.reports[:2]
    failed = Result(failure=Failure(kind="raised", worker=1, step=3, action=None, message="…"))
    assert unpack_result(pack_result(_ORDERS, failed)) == failed


def test_a_result_with_arrays_is_left_to_ray_which_does_not_copy_them() -> None:
    orders: tuple[Order, ...] = (Gather("parameters"),)
    result = _worker().run(orders)
    assert pack_result(orders, result) is result
    assert unpack_result(result) is result


def test_packing_a_submission_calls_no_function_for_each_report() -> None:
    """cloudpickle calls one, in the worker between two submissions and in the coordinator while workers compute."""
    worker, orders = _worker(), list[Order]()
    for step in range(1, 101):
        orders += [TrainStep(step, 0, 0, 4), Update(step, 0.1)]
    result = worker.run(orders)

    def calls(what: Any) -> int:
        names = list[str]()
        sys.setprofile(lambda frame, event, _: names.append(frame.f_code.co_name) if event == "call" else None)
        try:
            what()
        finally:
            sys.setprofile(None)
        return sum(name not in ("__getnewargs__", "<lambda>") for name in names)

    assert calls(lambda: pack_orders(orders)) <= 2
    assert calls(lambda: pack_result(orders, result)) <= len(orders) + 20  # the look for a Gather
    assert pickle.loads(pack_orders(orders)) == tuple(orders)
