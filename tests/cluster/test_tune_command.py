"""`pipetrain tune`, and `pipeline: auto` in the commands, with threads as workers."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from cluster.data.sources import JobData
from cluster.run.tuned_file import write_tuned
from cluster.run.tuning import MeasuredJob, own_program
from coordinator.job.spec import load_job
from coordinator.plan.blueprint import make_blueprint
from coordinator.plan.candidates import Candidate
from coordinator.plan.predicted_step import counted_times, predicted_step
from coordinator.plan.settings import PipelineSettings, with_settings
from coordinator.schedules import build
from tests.jobs import EXAMPLES, pipetrain_here

JOB = """\
# a job with comments
model:
  input: [64]
  layers: [linear: {units: 16}, relu, linear: {units: 10}]   # three layers
  loss: cross_entropy
data: {source: digits, validation: 0.2}
training:
  epochs: 1
  batch_size: 64
  micro_batches: 8      # parts
  optimizer: {sgd: {learning_rate: 0.1}}
pipeline:
  stages: 3             # a worker each
  schedule: gpipe
"""
CORES = len(os.sched_getaffinity(0))
SHORT = ("--local", "--seconds", "1", "--rounds", "1")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def test_it_measures_chooses_and_writes_a_job_file_with_the_user_s_comments(job: Path) -> None:
    output = job.with_name("tuned.yaml")
    done = pipetrain_here("tune", job, *SHORT, "--json", "--output", output)
    assert done.returncode == 0
    found = json.loads(done.stdout)
    measured = [one for one in found["measured"] if one["step_seconds"]]
    assert len(measured) >= 2
    assert found["predicted"] > 10
    assert any(one["own"] for one in measured)
    assert all(one["memory"] > 0 and one["predicted_seconds"] > 0 for one in measured)
    tuned = load_job(output)
    document = tuned.document()
    for path, value in found["chosen"].items():
        section, _, name = path.partition(".")
        assert document[section][name] == value
    assert "# a job with comments" in output.read_text()
    assert tuned.document()["data"] == load_job(job).document()["data"]
    assert done.stderr == f"{output} is written\n"


def test_its_table_says_what_was_tried_and_its_lines_are_options_of_train(job: Path) -> None:
    done = pipetrain_here("tune", job, *SHORT)
    assert done.returncode == 0
    assert "the job's own" in done.stdout
    (chosen,) = [line for line in done.stdout.splitlines() if line.startswith("chosen: ")]
    settings = chosen.removeprefix("chosen: ").partition(":")[0]
    assert any(line.startswith(f"│ {settings} ") for line in done.stdout.splitlines())
    flags = [line for line in done.stdout.splitlines() if line.startswith("or: ")]
    if flags:
        overrides = flags[0].removeprefix("or: ").replace("'", "").split(" --set ")
        overrides[0] = overrides[0].removeprefix("--set ")
        load_job(job, overrides)


def test_with_no_seconds_it_only_predicts_and_keeps_what_it_is_told_to_keep(job: Path) -> None:
    kept = "micro_batches,weight_grad_group,schedule"
    done = pipetrain_here("tune", job, "--seconds", "0", "--keep", kept, "--workers", "1", "--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert found["measured"] == []
    assert found["changes_bits"] == []
    assert all(one["workers"] == 1 for one in found["ranked"])
    assert {one["entries"]["pipeline.schedule"] for one in found["ranked"]} == {"gpipe"}
    assert "nothing was measured" in found["why"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--keep", "stage"], "--keep: 'stage' is not one of stages, workers, schedule, partition, micro_batches, "),
        (["--workers", "4096"], f"--workers: 4,096 workers of 1 CPU for a machine with {CORES} CPU"),
        (["--set", "resources.cpus_per_worker=4096"], "resources.cpus_per_worker: 4096, but this machine has "),
        (
            ["--set", "pipeline.stages=3", "--workers", "1", "--keep", "workers"],
            "--keep workers: the job has 3 workers",
        ),
        (
            ["--set", "resources.memory_per_worker=1KiB"],
            "resources.memory_per_worker: 1 KiB is too little for all settings; the ",
        ),
        (["--seconds", "nan"], "invalid value for '--seconds': nan is not a number"),
        (["--seconds", "inf"], "invalid value for '--seconds': inf is not in the range"),
        (["--seconds", "0", "--output", "/nowhere/tuned.yaml"], "--output: /nowhere/tuned.yaml cannot be written: "),
    ],
)
def test_bad_input_is_one_line(job: Path, arguments: list[str], expected: str) -> None:
    done = pipetrain_here("tune", job, *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {expected}")


# pipeline: auto -------------------------------------------------------------------------------------------------------


@pytest.fixture
def auto(tmp_path: Path) -> Path:
    path = tmp_path / "auto.yaml"
    path.write_text(JOB.partition("pipeline:")[0].replace("  micro_batches: 8      # parts\n", "") + "pipeline: auto\n")
    return path


def test_train_writes_what_auto_chose_into_the_run_and_resume_keeps_it(auto: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = pipetrain_here("train", auto, "--local", "--run-dir", run)
    assert done.returncode == 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("pipeline auto: ")]
    spec = load_job(run / "job.yaml")
    assert not spec.pipeline.is_auto
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert line in [event.get("detail") for event in events]
    again = pipetrain_here("resume", run, "--local", "--set", "training.epochs=2")
    assert again.returncode == 0
    assert "pipeline auto" not in again.stderr
    after = load_job(run / "job.yaml")
    assert after.pipeline == spec.pipeline
    assert after.training.micro_batches == spec.training.micro_batches


def test_plan_and_verify_choose_what_train_chooses(auto: Path) -> None:
    planned = json.loads(pipetrain_here("plan", auto, "--json").stdout)
    (line,) = [line for line in planned["data"] if line.startswith("pipeline auto: ")]
    verified = pipetrain_here("verify", auto, "--local", "--steps", "2", "--stages", "2", "--schedules", "zb-h1,gpipe")
    assert verified.returncode == 0
    assert line in verified.stderr.splitlines()


def test_an_entry_of_auto_cannot_be_set(auto: Path) -> None:
    done = pipetrain_here("plan", auto, "--set", "pipeline.stages=2")
    assert done.returncode == 2
    assert "pipeline is 'auto', which has no stages" in done.stderr


def test_the_example_is_tuned_from_its_file() -> None:
    done = pipetrain_here("tune", EXAMPLES / "digits.yaml", "--seconds", "0")
    assert done.returncode == 0
    assert "its predicted step is the shortest" in done.stdout


def test_verify_says_only_what_is_wrong_with_a_job_that_has_auto(auto: Path) -> None:
    done = pipetrain_here("verify", auto, "--local", "--set", "training.micro_batches=5000")
    assert done.returncode == 2
    assert done.stderr.startswith("error: training.micro_batches: got 5000, ")
    assert done.stderr.count("\n") == 1


def test_the_options_that_tune_prints_for_a_job_with_auto_are_taken(auto: Path) -> None:
    printed = pipetrain_here("tune", auto, "--seconds", "0").stdout
    (line,) = [line for line in printed.splitlines() if line.startswith("or: ")]
    planned = pipetrain_here("plan", auto, "--json", *shlex.split(line.removeprefix("or: ")))
    assert planned.returncode == 0
    assert "pipeline auto" not in planned.stdout


def test_a_job_with_auto_is_tuned_too(auto: Path) -> None:
    done = pipetrain_here("tune", auto, "--seconds", "0", "--json")
    assert done.returncode == 0
    assert set(json.loads(done.stdout)["changed"]) >= {"pipeline.stages", "pipeline.schedule", "training.micro_batches"}


def test_a_job_that_always_fails_is_a_failure_with_its_first_cause(job: Path, tmp_path: Path) -> None:
    rate = "training.optimizer={sgd: {learning_rate: 1e30}}"
    done = pipetrain_here("tune", job, "--local", "--seconds", "1", "--set", rate, "--output", tmp_path / "tuned.yaml")
    assert done.returncode == 1
    assert "\nfailed: nothing could be measured: " in done.stderr
    assert "try a lower learning rate" in done.stderr
    assert not (tmp_path / "tuned.yaml").exists()


def test_a_schedule_that_was_searched_for_measured_times_is_written_beside_the_job(job: Path) -> None:
    spec, output = load_job(job), job.with_name("tuned.yaml")
    settings = PipelineSettings(stages=3, workers=2, schedule="auto", micro_batches=4)
    program = build("zb-h2", n_stages=3, n_micro_batches=4, n_workers=2)
    assert write_tuned(job, spec, settings, output, program)
    assert 'schedule: "tuned.schedule.csv"' in output.read_text(), "its name alone, so that both files can be moved"
    tuned = load_job(output)
    assert tuned.pipeline.schedule == str(job.with_name("tuned.schedule.csv"))
    found = make_blueprint(tuned, 640).program
    assert (found.lanes, found.n_workers) == (program.lanes, 2)
    (job.parent / "moved").mkdir()
    for name in ("tuned.yaml", "tuned.schedule.csv"):
        job.with_name(name).rename(job.parent / "moved" / name)
    assert make_blueprint(load_job(job.parent / "moved" / "tuned.yaml"), 640).program.lanes == program.lanes


def test_a_searched_schedule_that_a_job_finds_again_needs_no_file(job: Path) -> None:
    measured = MeasuredJob(spec=load_job(job), data=cast(JobData, None), rows=64)
    settings = PipelineSettings(stages=3, workers=2, schedule="auto", micro_batches=4)
    plain = make_blueprint(with_settings(measured.spec, settings), 64)
    predicted = predicted_step(plain, counted_times(plain.spec))
    candidate = Candidate(settings=settings, blueprint=plain, predicted=predicted)
    assert own_program(measured, candidate) is None
    program = build("gpipe", n_stages=3, n_micro_batches=4, n_workers=2)
    other = replace(candidate, blueprint=replace(plain, programs={4: program}))
    assert own_program(measured, other) is program
    alone = replace(other, settings=replace(settings, workers=1))
    assert own_program(measured, alone) is None


def test_a_file_that_is_no_schedule_is_never_overwritten_by_one(job: Path) -> None:
    mine = job.with_name("tuned.schedule.csv")
    mine.write_text("x,y\n1,2\n")
    refused = pipetrain_here("tune", job, "--local", "--seconds", "0", "--output", job.with_name("tuned.yaml"))
    assert refused.returncode == 2
    assert refused.stderr == f"error: --output: {mine} exists and is no schedule; name another file\n"
    assert mine.read_text() == "x,y\n1,2\n"
