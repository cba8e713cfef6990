from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path
from typing import Any, Literal

import pytest

from coordinator.job.spec import JobSpec
from coordinator.train.rows import TrainedStep
from stages.errors import JobFailed, NonFinite, StageFailed, WorkerHung, WorkerLost
from stages.orders import Fault
from tests.jobs import digits_job, start_on_ray

pytestmark = pytest.mark.timeout(400)
_TRIES = 3


def _fail(
    ray: Any,
    what: Literal["raise", "kill", "stop", "block", "nan", "lose"],
    action: str,
    kind: type[JobFailed],
    *,
    within_s: float = 5,
    stages: int = 3,
) -> str:
    """Return the message of the failure, which must come within `within_s`. No process may be left running."""
    for _ in range(_TRIES):  # a busy machine may delay one run, but not all of them
        told, took = _failure(
            ray, digits_job(stages=stages), {int(action[0]): Fault(step=7, action=action, what=what)}, kind
        )
        if took < within_s:
            return told
    raise AssertionError(f"it took {took:.1f} s, which is more than {within_s:g}: {told}")


def _failure(ray: Any, spec: JobSpec, faults: dict[int, Fault], kind: type[JobFailed]) -> tuple[str, float]:
    run = start_on_ray(ray, spec, faults)
    pids = [address.pid for address in run.workers.addresses]
    with contextlib.closing(run.workers):
        began = time.monotonic()
        with pytest.raises(kind) as caught:
            run.train()
        took = time.monotonic() - began
    wait_until_gone(pids)
    return f"{caught.value}\n{getattr(caught.value, 'traceback', '')}", took


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, f"of {pids} some are still running"
        time.sleep(0.05)


def test_an_exception_is_told_with_stage_worker_action_and_traceback(ray: Any) -> None:
    told = _fail(ray, "raise", "2B3", StageFailed)
    assert told.startswith(
        f"stage 2, worker 2 on {os.uname().nodename} in 2B3 of step 7: RuntimeError: injected fault before 2B3"
    )
    assert "in strike\n" in told
    assert "<-- 2B3 failed here" in told


def test_a_killed_process_is_named_and_what_the_others_waited_for(ray: Any) -> None:
    told = _fail(ray, "kill", "1F2", WorkerLost)
    assert told.startswith("worker 1 (stage 1; process ")
    assert "worker 0 was in 0" in told
    assert "<-- lost" in told, "a drawing shows where it was"


def test_a_stopped_process_is_told_from_those_that_wait_for_it(ray: Any) -> None:
    told = _fail(ray, "stop", "1B5", WorkerHung, within_s=30)  # long before the hang_timeout
    assert told.startswith("worker 1 (stage 1; process ")
    assert re.search(r"hangs: no answer within [\d.]+ s; its process is stopped", told)
    assert "from worker 1" in told, "the error says what the other workers wait for"


def test_a_blocked_thread_is_found_long_before_the_hang_timeout(ray: Any) -> None:
    told = _fail(ray, "block", "1B5", WorkerHung, within_s=30)
    assert told.startswith("worker 1 (stage 1; process ")
    assert re.search(r"hangs: no progress within [\d.]+ s; it is still in 1B5 of step 7, and uses no CPU", told)


def test_a_lost_array_is_told_with_who_waits_for_it_and_who_sent_it(ray: Any) -> None:
    told = _fail(ray, "lose", "1F5", WorkerHung, within_s=30)
    assert told.startswith("worker 2 (stage 2; process ")
    assert "; it is in 2F5 of step 7, waiting for the activations for 2F5" in told
    assert "from worker 1, which has sent them: they were lost on the way" in told


def test_a_slow_pipeline_in_which_nobody_hangs_is_left_alone(ray: Any) -> None:
    """The last stage waits for the three before it, and each of those computes for longer than the hang timeout.

    A fault strikes before the worker waits for its action's input. So worker w is slow before micro-batch w, when
    worker w - 1 is done: before micro-batch 0, all three would compute at the same time.
    """
    spec = digits_job().replace(resources__hang_timeout=1.5)
    run = start_on_ray(ray, spec, {w: Fault(step=7, action=f"{w}F{w}", what="slow", seconds=1.9) for w in range(3)})
    with contextlib.closing(run.workers):
        rows = [row for row in run.train() if isinstance(row, TrainedStep)]
    assert len(rows) == 28
    assert sum(rows[6].reports[3].account.stages[3][4:7]) > 3 * 1.5, "it waited for each of them longer than the limit"


def test_a_value_that_becomes_nan_is_told_with_layer_step_and_micro_batch(ray: Any) -> None:
    told = _fail(ray, "nan", "2F4", NonFinite, stages=4)
    assert told.startswith("the output of layer 2 became NaN or infinite in step 7, micro-batch 4 (2F4)")


def test_a_run_after_all_these_failures_is_undisturbed(ray: Any) -> None:
    run = start_on_ray(ray, digits_job(stages=2))
    with contextlib.closing(run.workers):
        assert len(run.train()) == 30
