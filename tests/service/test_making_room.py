"""A job that makes room for another one, or loses its runner, goes on by itself and ends with the same weights."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import yaml
from safetensors.numpy import load_file

from cluster.client import Job
from tests.jobs import pipetrain_here
from tests.service.conftest import JobMaker
from tests.service.running import Service, collect_without_gaps, until, wait_for

EPOCHS = 300


def _weights(folder: Path) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in load_file(folder / "model.safetensors").items()}


@pytest.fixture(scope="module")
def undisturbed(small: JobMaker, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The weights of a run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "job.yaml").write_text(yaml.safe_dump(small(EPOCHS)))
    assert pipetrain_here("train", folder / "job.yaml", "--local", "--run-dir", folder / "run").returncode == 0
    return _weights(folder / "run")


def _await_steps(job: Job, steps: int) -> None:
    until(job, "RUNNING")
    wait_for(lambda: job.refresh().step >= steps, "it makes no steps")


def _ends_as(service: Service, job: Job, undisturbed: dict[str, bytes]) -> None:
    job.wait(timeout=300)
    assert (job.state, job.attempt, job.step) == ("SUCCEEDED", 2, 10 * EPOCHS), job.reason
    steps = [row["step"] for row in service.rows(job) if row["kind"] == "step"]
    assert steps == list(range(1, 10 * EPOCHS + 1)), "no row is missing, and none is there twice"
    assert _weights(service.home.run_directory(job.id)) == undisturbed


def test_a_job_makes_room_and_goes_on_where_it_was(
    service: Service, small: JobMaker, undisturbed: dict[str, bytes]
) -> None:
    low = service.client.submit(small(EPOCHS, pipeline__stages=2, name="low"))
    _await_steps(low, 20)
    high = service.client.submit(small(3, pipeline__stages=2, name="high"), priority=7, preempt=True)
    assert high.wait(timeout=300).state == "SUCCEEDED"
    _ends_as(service, low, undisturbed)
    events = {event.kind: event for event in low.events()}
    assert events["preempted"].text == f"makes room for job {high.id} of priority 7"
    step = events["stopped"].details["step"]
    assert events["resumed"].text == f"goes on from the checkpoint of step {step}"
    assert f"makes room for job {high.id}" in service.run("describe", low.id).stdout


def test_a_job_whose_runner_is_killed_goes_on_from_its_newest_checkpoint(
    service: Service, small: JobMaker, undisturbed: dict[str, bytes]
) -> None:
    job = service.client.submit({**small(EPOCHS), "checkpoint": {"every_steps": 25}})
    wait_for(lambda: any(event.kind == "checkpoint" for event in job.events()), "no checkpoint")
    (preparing,) = (event for event in job.events() if event.kind == "preparing")
    os.kill(preparing.details["pid"], signal.SIGKILL)
    _ends_as(service, job, undisturbed)
    kinds = collect_without_gaps(job.events())
    assert kinds.index("runner lost") < kinds.index("resumed")
    (lost,) = (event for event in job.events() if event.kind == "runner lost")
    assert lost.text.startswith("its runner's process ended unexpectedly")
