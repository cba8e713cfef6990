"""Ray dies while jobs run: they are started again, and their events say so."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.actors.host_processes import command_line, in_session
from cluster.client import Job
from cluster.service.ray_head import RayHead
from coordinator.job.spec import parse_job
from coordinator.train.rows import Row
from tests.jobs import pipetrain_here
from tests.service.conftest import JobMaker
from tests.service.running import Service, collect_without_gaps, state_of, steps, until, wait_for


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("ray-killed") / "home", "--workers", "2")
    running.up()
    yield running
    running.down()


def _kill_ray(service: Service, part: bytes) -> None:
    head = RayHead.left_by_another(service.home)
    assert head is not None
    (pid,) = (pid for pid in in_session(head.session) if part in command_line(pid))
    os.kill(pid, signal.SIGKILL)


def _wait_for_steps(job: Job, attempt: int) -> None:
    until(job, "RUNNING")  # its first rows are those of the attempt before
    wait_for(lambda: job.refresh().attempt == attempt and job.step > 100, f"attempt {attempt} makes no steps")


GCS, RAYLET, HEAD = b"gcs_server", b"raylet/raylet", b"cluster.service.ray_head"


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "parts",
    [(RAYLET, HEAD), pytest.param((GCS, RAYLET, HEAD), marks=pytest.mark.slow)],
    ids=["without the last test's", "all"],
)
def test_a_job_is_started_again_each_time_and_trains_the_same_weights(
    service: Service, small: JobMaker, tmp_path: Path, parts: tuple[bytes, ...]
) -> None:
    """Parts of Ray are killed, one after another."""
    epochs = 800  # enough to train still when the service notices the loss of Ray
    job = service.client.submit({**small(epochs, pipeline__stages=2), "checkpoint": {"every_steps": 50}})
    rows: list[Row] = []
    follower = threading.Thread(target=lambda: rows.extend(job), daemon=True)
    follower.start()
    other = service.client.get(job.id)
    waiting = service.client.submit(small(1))
    for attempt, part in enumerate(parts, 1):
        _wait_for_steps(other, attempt)
        _kill_ray(service, part)
        until(other, "RECOVERING")
        assert other.reason == (
            f"Ray was lost: one of its processes died; attempt {attempt + 1} starts when there is room"
        )
    assert other.wait(timeout=200).state == "SUCCEEDED"
    follower.join(120)

    last = len(parts) + 1
    assert other.attempt == last
    attempts = [[row for row in rows if row.attempt == attempt] for attempt in range(1, last + 1)]
    assert steps(rows) == [step for attempt in attempts for step in steps(attempt)], "in order"
    for attempt, found in enumerate(attempts, 1):
        assert steps(found) == list(range(1, 1 + (len(steps(found)) if attempt < last else 10 * epochs)))
        kept = service.rows(job, attempt=attempt) if attempt < last else service.rows(job)
        assert [row.as_dict() for row in found] == kept
    again = ("admitted", "preparing", "resumed", "starting", "started")
    events = list(other.events())
    assert [kind for kind in collect_without_gaps(events) if kind not in ("checkpoint", "data")] == [
        *("submitted", "admitted", "preparing", "starting", "started"),
        *(kind for _ in parts for kind in ("cluster lost", *again)),
        "finished",
    ]
    resumed = [event.details["step"] for event in events if event.kind == "resumed"]
    assert resumed == sorted(resumed)
    assert resumed[0] > 0
    assert waiting.wait(timeout=120).state == "SUCCEEDED"

    (tmp_path / "job.yaml").write_text(parse_job(small(epochs)).to_yaml())
    alone = pipetrain_here("train", tmp_path / "job.yaml", "--local", "--run-dir", tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    other.fetch(tmp_path / "fetched", "model")
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("alone", "fetched")]
    assert models[0] == models[1]


def test_a_job_that_waits_for_ray_can_be_stopped(service: Service, small: JobMaker) -> None:
    job = until(service.client.submit(small(100_000)), "RUNNING")
    _kill_ray(service, GCS)
    until(job, "RECOVERING")
    job.stop()
    assert state_of(job) == "STOPPED"
    assert job.reason == "stopped after Ray was lost: one of its processes died, before it began again"
    assert service.client.submit(small(1)).wait(timeout=120).state == "SUCCEEDED"
