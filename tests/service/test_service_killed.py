"""The service is killed at each named point and starts again: nothing is lost, reported twice or run twice."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from cluster.actors.host_processes import end_session
from cluster.client import Job
from cluster.service.ray_head import RayHead
from coordinator.train.rows import Row
from tests.service.conftest import JobMaker
from tests.service.running import Service, collect_without_gaps, state_of, steps, until, wait_for

EPOCHS = 250
_PATIENCE_S = 200.0


@pytest.fixture(scope="module")
def killable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service for each test. Ray goes on while the service is killed and started again."""
    service = Service(tmp_path_factory.mktemp("killed") / "home", "--workers", "2")
    yield service
    service.down()


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients retry for longer than usual: on a busy machine the next service takes long to start."""
    monkeypatch.setattr("cluster.client.connection.RETRY_S", _PATIENCE_S)


class _Follower(threading.Thread):
    """Watches a job from its beginning to its end, even if the service is killed meanwhile."""

    def __init__(self, job: Job) -> None:
        super().__init__(daemon=True)
        self._job = job
        self.rows: list[Row] = []
        self.start()

    def run(self) -> None:
        for update in self._job.watch(patience=_PATIENCE_S):
            self.rows.extend(update.rows)


class _Submission(threading.Thread):
    """Submits a job. The client repeats the call if the service dies before it answers."""

    def __init__(self, service: Service, document: dict[str, object]) -> None:
        super().__init__(daemon=True)
        self._service, self._document = service, document
        self._jobs: list[Job] = []
        self.start()

    def run(self) -> None:
        self._jobs.append(self._service.client.submit(self._document))

    @property
    def job(self) -> Job:
        self.join(_PATIENCE_S)
        (job,) = self._jobs
        return job


@pytest.mark.parametrize("point", ["accepted", "admitted", "launched", "following", "before the end is noted", "ended"])
def test_a_job_is_run_once_and_told_once_wherever_the_service_dies(
    killable: Service, small: JobMaker, point: str
) -> None:
    killable.up(kill_at=point)
    submission = _Submission(killable, small(EPOCHS, name=point.replace(" ", "-")))
    if point not in ("accepted", "admitted", "launched"):
        follower = _Follower(submission.job)
    killable.await_death()
    killable.up()
    job = submission.job
    if point in ("accepted", "admitted", "launched"):
        follower = _Follower(job)
    with contextlib.closing(killable.client):
        assert job.wait(timeout=120).state == "SUCCEEDED", job.reason
    follower.join(_PATIENCE_S)

    assert job.attempt == 1
    assert [row["step"] for row in killable.rows(job) if row["kind"] == "step"] == list(range(1, 10 * EPOCHS + 1))
    assert steps(follower.rows) == list(range(1, 10 * EPOCHS + 1))
    assert [row.as_dict() for row in follower.rows] == killable.rows(job)
    kinds = Counter(collect_without_gaps(job.events()))
    assert kinds == dict.fromkeys(("submitted", "admitted", "preparing", "data", "starting", "started", "finished"), 1)
    assert [found.id for found in killable.client.list(name=job.name)] == [job.id]
    killable.kill()


def test_a_stop_that_was_noted_is_carried_out_by_the_next_service(killable: Service, small: JobMaker) -> None:
    killable.up(kill_at="stop noted")
    job = until(killable.client.submit(small(100_000)), "RUNNING")
    stopping = threading.Thread(target=job.stop, daemon=True)
    stopping.start()
    killable.await_death()
    killable.up()
    stopping.join(_PATIENCE_S)
    assert until(job, "STOPPED").reason.endswith("weights saved")
    assert (killable.home.run_directory(job.id) / "model.safetensors").exists()
    killable.kill()


def test_a_job_that_waits_is_still_there_and_runs(killable: Service, small: JobMaker) -> None:
    killable.up()
    running = until(killable.client.submit(small(100_000, pipeline__stages=2)), "RUNNING")
    waiting = killable.client.submit(small())
    assert waiting.state == "QUEUED"
    assert waiting.reason == "position 1: needs 1 CPU, 0 of 2 free"
    killable.kill()
    killable.up()
    assert state_of(waiting) == "QUEUED"
    assert state_of(running) == "RUNNING"
    running.stop(now=True)
    assert waiting.wait(timeout=120).state == "SUCCEEDED"
    assert until(running, "STOPPED").reason == "stopped at once, nothing saved"
    killable.kill()


def test_after_a_reboot_up_starts_what_was_running_and_what_waited(killable: Service, small: JobMaker) -> None:
    """A reboot ends all processes at once, and may empty the folder for temporary files."""
    killable.up()
    job = killable.client.submit({**small(EPOCHS, pipeline__stages=2), "checkpoint": {"every_steps": 25}})
    waiting = killable.client.submit(small(1))
    wait_for(lambda: any(event.kind == "checkpoint" for event in job.events()), "no checkpoint")
    killable.kill()
    head = RayHead.left_by_another(killable.home)
    assert head is not None
    assert end_session(head.session)
    shutil.rmtree(head.folder)
    killable.up()
    with contextlib.closing(killable.client) as client:
        job, waiting = client.get(job.id), client.get(waiting.id)
        assert job.wait(timeout=200).state == "SUCCEEDED", job.reason
        assert (job.attempt, job.step) == (2, 10 * EPOCHS)
        assert waiting.wait(timeout=120).state == "SUCCEEDED"
        kinds = collect_without_gaps(job.events())
    assert kinds.index("cluster lost") < kinds.index("resumed")
    rows = killable.rows(job)
    assert [row["step"] for row in rows if row["kind"] == "step"] == list(range(1, 10 * EPOCHS + 1))
    killable.kill()


def test_down_after_the_service_was_killed_ends_all_its_processes(killable: Service, small: JobMaker) -> None:
    killable.up()
    job = until(killable.client.submit(small(100_000)), "RUNNING")
    killable.kill()
    assert "1 job to start again" in killable.down()
    assert "nothing is up" in killable.down()
    killable.up()
    again = until(killable.client.get(job.id), "RUNNING")
    assert again.attempt == 2
    assert "cluster lost" in collect_without_gaps(again.events())
