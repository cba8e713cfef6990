"""Stopping jobs in every state, and jobs that do not affect each other."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.actors.host_processes import command_line
from cluster.client import Job
from tests.service.conftest import JobMaker
from tests.service.running import Service, collect_without_gaps, until, wait_for


def _workers(job: Job) -> list[dict[str, Any]]:
    (started,) = (event for event in job.events() if event.kind == "started")
    workers: list[dict[str, Any]] = started.details["workers"]
    return workers


def _gone(pids: list[int]) -> None:
    wait_for(lambda: not any(b"Pipetrain" in command_line(pid) for pid in pids), f"of {pids} some still run")


def test_stop_in_the_queue_ends_the_job_at_once(service: Service, small: JobMaker) -> None:
    running = until(service.client.submit(small(100_000, pipeline__stages=2)), "RUNNING")
    waiting = service.client.submit(small())
    assert waiting.stop().state == "STOPPED"
    assert waiting.reason == "stopped in the queue, before it began"
    assert waiting.exit_code == 130
    running.stop(now=True).wait(timeout=120)


def test_stop_while_it_starts_ends_it_before_it_trains(service: Service, small: JobMaker) -> None:
    job = until(service.client.submit(small(100_000)), "STARTING")
    assert job.stop().state == "STARTING"
    assert job.reason == "stopping: finishes the steps in progress and saves"
    assert job.wait(timeout=120).state == "STOPPED"
    assert job.step < 100


def test_stop_while_it_runs_saves_the_weights_and_leaves_no_process(service: Service, small: JobMaker) -> None:
    job = until(service.client.submit(small(100_000)), "RUNNING")
    pids = [worker["pid"] for worker in _workers(job)]
    assert job.stop(grace=100).reason == "stopping: finishes the steps in progress and saves within 100 s"
    assert job.wait(timeout=120).state == "STOPPED"
    assert job.reason == f"stopped at step {job.step}, weights saved"
    assert job.exit_code == 130
    assert [row["step"] for row in service.rows(job) if row["kind"] == "step"] == list(range(1, job.step + 1))
    assert (service.home.run_directory(job.id) / "model.safetensors").exists()
    _gone(pids)


def test_a_stop_without_any_grace_saves_nothing_and_the_exit_code_says_so(service: Service, small: JobMaker) -> None:
    job = until(service.client.submit(small(100_000)), "RUNNING")
    wait_for(lambda: job.refresh().step >= 1, "it makes no steps")
    stopped = service.run("stop", job.id, "--grace", "0")
    assert stopped.returncode == 0, "the command has stopped it"
    job.refresh()
    assert (job.state, job.exit_code) == ("STOPPED", 3)
    assert "its grace was over before it was saved" in job.reason
    assert service.run("stop", job.id, "--now", "--grace", "5").returncode == 2


def test_stop_now_ends_a_job_that_hangs(service: Service, small: JobMaker) -> None:
    job = until(service.client.submit(small(100_000, pipeline__stages=2)), "RUNNING")
    pids = [worker["pid"] for worker in _workers(job)]
    os.kill(pids[1], signal.SIGSTOP)
    began = time.monotonic()
    job.stop(now=True)
    assert job.wait(timeout=120).state == "STOPPED"
    assert job.reason == "stopped at once, nothing saved"
    assert time.monotonic() - began < 30, "the service does not wait as for a hanging runner, which takes a minute"
    _gone(pids)


def test_stop_of_a_job_that_has_ended_says_what_it_is(service: Service, small: JobMaker) -> None:
    job = service.client.submit(small(1)).wait(timeout=120)
    before = collect_without_gaps(job.events())
    assert job.stop().state == "SUCCEEDED"
    assert collect_without_gaps(job.events()) == before
    told = service.run("stop", job.id)
    assert told.returncode == 0
    assert told.stdout.startswith(f"{job.id} has ended already: finished at step 10 of 10")


def _throws(job: Job) -> None:
    """Return a job whose learning rate makes its loss infinite."""


def _dies(job: Job) -> None:
    until(job, "RUNNING")
    os.kill(_workers(job)[0]["pid"], signal.SIGKILL)


def _hangs(job: Job) -> None:
    until(job, "RUNNING")
    os.kill(_workers(job)[0]["pid"], signal.SIGSTOP)


@pytest.mark.parametrize(
    ("changes", "harm", "told"),
    [
        ({"training__optimizer": {"sgd": {"learning_rate": 1e30}}}, _throws, "became"),
        ({"recovery": {"max_restarts": 0}}, _dies, "worker 0 (stage 0; process"),
        (
            {"recovery": {"max_restarts": 0}},
            _hangs,
            "; its process is stopped",
        ),
    ],
    ids=["throws", "dies", "hangs"],
)
def test_a_job_that_fails_tells_the_first_cause_and_disturbs_no_other(
    service: Service, small: JobMaker, changes: dict[str, Any], harm: Any, told: str
) -> None:
    other = until(service.client.submit(small(100_000, name="other")), "RUNNING")
    job = service.client.submit(small(100_000, **changes))
    harm(job)
    assert job.wait(timeout=120).state == "FAILED"
    assert told in job.reason
    assert job.exit_code == 1
    step = other.refresh().step
    wait_for(lambda: other.refresh().step > step, "the other makes no more steps")
    assert other.stop().wait(timeout=120).reason == f"stopped at step {other.step}, weights saved"
    assert other.attempt == 1
    assert service.client.submit(small(1)).wait(timeout=120).state == "SUCCEEDED"


def test_a_job_that_loses_a_worker_goes_on_and_describe_has_the_story(service: Service, small: JobMaker) -> None:
    job = service.client.submit(small(100_000, name="loses-a-worker"))
    _dies(job)
    wait_for(lambda: any(event.kind == "recovered" for event in job.events()), "the worker is not replaced")
    step = job.refresh().step
    wait_for(lambda: job.refresh().step > step, "it makes no more steps")
    assert (job.state, job.attempt) == ("RUNNING", 1)
    described = service.run("describe", job.id).stdout
    assert "killed from outside, by the kernel for lack of memory, or by a crash" in described
    assert "worker 0 is replaced" in described
    assert "the run goes on " in described
    pids = [at["pid"] for event in job.events() if event.kind == "recovered" for at in event.details["workers"]]
    assert job.stop().wait(timeout=120).reason == f"stopped at step {job.step}, weights saved"
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the new worker is left")


def test_a_job_that_eats_memory_takes_down_itself_only(service: Service, small: JobMaker, tmp_path: Path) -> None:
    other = until(service.client.submit(small(100_000, name="other")), "RUNNING")
    np.savez(tmp_path / "wide.npz", x=np.ones((40, 1000)), y=np.ones((40, 1)))
    layers = [{"linear": {"units": 4000}}, {"linear": {"units": 4000}}, {"linear": {"units": 1}}]
    greedy = small(
        model__input=[1000],
        model__layers=layers,
        data__source=str(tmp_path / "wide.npz"),
        resources={"memory_per_worker": "40MiB"},
    )
    refused = service.client.submit(greedy).wait(timeout=120)
    assert refused.state == "FAILED"
    assert refused.exit_code == 2
    assert "worker 0 (stage 0) needs" in refused.reason
    forced = service.client.submit(greedy, force=True).wait(timeout=120)
    assert forced.state == "FAILED"
    assert forced.exit_code == 1
    assert "resources.memory_per_worker allows 41,943,040 bytes" in forced.reason
    step = other.refresh().step
    wait_for(lambda: other.refresh().step > step, "the other makes no more steps")
    assert other.stop().wait(timeout=120).reason == f"stopped at step {other.step}, weights saved"
    assert other.attempt == 1


@pytest.mark.timeout(500)
@pytest.mark.parametrize("many", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_many_jobs_through_two_workers_all_finish_in_turn(service: Service, small: JobMaker, many: int) -> None:
    jobs = [service.client.submit(small(1, name=f"many-{n}")) for n in range(many)]
    queued = [job for job in reversed(service.client.list(["QUEUED"])) if job.state == "QUEUED"]
    assert queued
    assert [job.id for job in queued] == [job.id for job in jobs[-len(queued) :]]
    assert [job.queue_position for job in queued] == list(range(1, len(queued) + 1)), "first in, first out"
    for job in jobs:
        assert job.wait(timeout=400, patience=300).state == "SUCCEEDED", job.reason
        assert [row["step"] for row in service.rows(job) if row["kind"] == "step"] == list(range(1, 11))
    begun = [job.started_at for job in jobs if job.started_at is not None]
    assert begun == sorted(begun)
    assert len(begun) == many
