"""`submit --resume`: a new job that goes on from the checkpoints of one that has ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from safetensors.numpy import load_file

from cluster.client import Job
from stages.errors import InvalidJob, Refused
from tests.jobs import pipetrain_here
from tests.service.conftest import JobMaker
from tests.service.running import Service, collect_without_gaps, until


def _weights(folder: Path) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in load_file(folder / "model.safetensors").items()}


@pytest.fixture(scope="module")
def ended(service: Service, small: JobMaker) -> Job:
    """A job that has made 30 steps."""
    return service.client.submit(small(3)).wait(check=True)


def test_a_job_goes_on_as_a_new_one_and_ends_with_the_weights_of_one_long_run(
    service: Service, small: JobMaker, ended: Job, tmp_path: Path
) -> None:
    before = ended.refresh().as_dict()
    done = service.run(
        *("submit", "--resume", ended.id[:6], "--stages", "2", "--schedule", "gpipe", "--set", "training.epochs=5"),
        *("--name", "longer", "--json"),
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["state"], told["step"], told["steps_total"], told["name"]) == ("SUCCEEDED", 50, 50, "longer")
    job = service.client.get(told["id"])
    assert job.document["pipeline"]["stages"] == 2
    kinds = collect_without_gaps(events := list(job.events()))
    assert kinds.index("resumed") < kinds.index("starting")
    assert f"goes on after step 30 of job {ended.id}" in events[0].text
    assert [row["step"] for row in service.rows(job) if row["kind"] == "step"] == list(range(31, 51))

    (tmp_path / "job.yaml").write_text(yaml.safe_dump(small(5)))
    assert pipetrain_here("train", tmp_path / "job.yaml", "--local", "--run-dir", tmp_path / "long").returncode == 0
    assert _weights(service.home.run_directory(job.id)) == _weights(tmp_path / "long")
    assert ended.refresh().as_dict() == before, "the old job stays as it is"


def test_what_may_not_change_is_refused_with_a_line_each(service: Service, ended: Job) -> None:
    with pytest.raises(InvalidJob) as told:
        service.client.resume(ended.id, overrides=["seed=4", "training.batch_size=8"])
    seed, batch = told.value.problems
    assert seed == "seed: got 4, but the checkpoint has 3, and this may not change: it decides the order of the rows"
    assert batch.startswith("training.batch_size: got 8, but the checkpoint has 16")
    with pytest.raises(Refused, match=r"has made all 30 steps; give more with --set training.epochs=N"):
        service.client.resume(ended.id)
    done = service.run("submit", "job.yaml", "--resume", ended.id)
    assert (done.returncode, done.stderr) == (
        2,
        f"error: job.yaml: --resume goes on with the job of {ended.id}; leave out the file, and change the job with "
        "--set\n",
    )


def test_a_job_that_has_not_ended_or_has_nothing_is_refused_with_what_to_do(
    service: Service, small: JobMaker, ended: Job
) -> None:
    running = until(service.client.submit(small(100_000)), "RUNNING")
    waiting = service.client.submit(small(1, pipeline__stages=2))
    with pytest.raises(Refused, match=r"is RUNNING; only a job that has ended can be resumed: stop it first"):
        service.client.resume(running.id)
    waiting.stop().wait()
    with pytest.raises(Refused, match=r"has no whole checkpoint to go on from; submit its job file anew"):
        service.client.resume(waiting.id)
    stopped = running.stop().wait()
    assert (stopped.state, stopped.exit_code) == ("STOPPED", 130)
    again = service.client.resume(stopped.id, submission_id="twice", overrides=["training.epochs=90000"])
    assert service.client.resume(stopped.id, submission_id="twice", overrides=["training.epochs=90000"]).id == again.id
    runs = service.home.run_directory(again.id).parent
    assert {folder.name for folder in runs.iterdir()} <= {job.id for job in service.client.list()}, "no folder is left"
    stopped.delete()
    until(again, "RUNNING")
    assert again.stop().wait().step >= stopped.step, "the old job's files are not needed any more"
