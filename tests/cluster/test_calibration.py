"""A job's work is measured with the worker's own code, and a prediction stands beside a run. No Ray runs here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.cli.step_tables import comparison_lines, prediction_document, prediction_lines
from cluster.data.sources import load_data
from cluster.run import calibration, coordinator_time
from cluster.run.calibrating import MICRO_BATCHES, Measuring, random_rows
from cluster.run.calibration import calibrate, first_alike
from cluster.run.recorded_steps import recorded_steps
from coordinator.job.spec import JobSpec, parse_job
from coordinator.plan.blueprint import make_blueprint
from coordinator.plan.predicted_step import estimated_times, predicted_step
from coordinator.timing.step_comparison import COMPARED, compare
from coordinator.train.rows import JudgedEvaluation, TrainedStep
from coordinator.train.trainer import Trainer
from stages.errors import HostFailed, UserMistake
from tests.jobs import EXAMPLES, pipetrain_here


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements of a few steps."""
    monkeypatch.setattr(calibration, "SECONDS", 0.0)
    monkeypatch.setattr(calibration, "LINK_TIMES", 3)


def digits(**pipeline: Any) -> JobSpec:
    return parse_job(
        {
            "model": {
                "input": [64],
                "layers": [*[{"linear": {"units": 16}}, "relu"] * 3, {"linear": {"units": 10}}],
                "loss": "cross_entropy",
            },
            "data": {"source": "digits", "validation": 0.2},
            "training": {
                "epochs": 1, "batch_size": 64, "micro_batches": 4, "optimizer": {"sgd": {"learning_rate": 0.1}},
            },
            "pipeline": {"stages": 2, "schedule": "1f1b", **pipeline},
        }
    )  # fmt: skip


def text(folder: Path) -> JobSpec:
    (folder / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
    layers: list[Any] = [
        {"embedding": {"units": 8}}, "positions", {"transformer": {"heads": 2, "times": 1}},
        {"linear": {"units": "classes", "bias": False, "tied_to": 0}},
    ]  # fmt: skip
    spec = parse_job(
        {
            "model": {"layers": layers, "loss": "cross_entropy"},
            "data": {"source": str(folder / "text.txt"), "block": 8, "validation": 0.2},
            "training": {
                "epochs": 1, "batch_size": 8, "micro_batches": 4, "optimizer": {"adamw": {"learning_rate": 1e-3}},
            },
            "pipeline": {"stages": 2, "schedule": "zb-h1"},
        }
    )  # fmt: skip
    return load_data(spec).spec


@pytest.mark.parametrize("group", [1, 2])
def test_every_operation_is_measured_by_itself_and_in_stages(group: int, tmp_path: Path) -> None:
    for spec in (digits(), text(tmp_path)):
        measuring, n = Measuring(spec), len(spec.model_spec().network.ops)
        for first, stop in [*((k, k + 1) for k in range(n)), (0, 2), (2, n)]:
            found = measuring.part(first, stop, 2, group, 0.0)
            assert found["F"] > 0
            assert min(found.values()) >= 0
        assert found["I"] > 0
        assert found["W"] > 0


def test_random_rows_fit_the_network_and_its_loss(tmp_path: Path) -> None:
    for spec in (digits(), text(tmp_path)):
        rows = random_rows(spec, 3 * MICRO_BATCHES)
        real = load_data(spec).train
        assert (rows.x.shape[1:], rows.y.shape[1:]) == (real.x.shape[1:], real.y.shape[1:])
        for made, given in ((rows.x, real.x), (rows.y, real.y)):
            assert (made.dtype.kind == "f") == (given.dtype.kind == "f")


def test_operations_that_do_the_same_are_measured_once() -> None:
    network = digits().model_spec().network
    alike = [first_alike(network, k) for k in range(len(network.ops))]
    assert alike == [0, 1, 2, 1, 2, 1, 6]  # the first linear has no input gradient, the last one has the loss


def test_times_of_this_machine_predict_any_cut_and_any_micro_batches() -> None:
    spec = digits()
    bounds = make_blueprint(spec, 1438).bounds
    seen: list[tuple[int, int]] = []
    times = calibrate(
        spec, 2, bounds=[bounds], rows=[8, 16], groups=[1, 2], on_progress=lambda done, of: seen.append((done, of)),
    )  # fmt: skip
    assert seen[-1][0] == seen[-1][1] == len(seen)
    assert times.source == "measured"
    assert times.local.measured
    assert {(k, k + 1) for k in range(7)} | {(bounds[0], bounds[1]), (bounds[1], bounds[2])} == set(times.parts)
    assert all(len(part.joined.points) >= 2 for part in times.parts.values())
    for pipeline in ({"stages": 3, "schedule": "zb-h2"}, {"stages": 4, "schedule": "zbv", "weight_grad_group": 2}):
        step = predicted_step(make_blueprint(digits(**pipeline), 1438), times)
        told = prediction_document(step, times, samples=64)
        assert told["source"] == "measured"
        assert sum(told["by_cause"].values()) == pytest.approx(told["seconds"])


@pytest.mark.parametrize("rows", [[8], [8, 32]])
def test_a_group_of_any_size_has_its_fixed_part(rows: list[int]) -> None:
    """W takes 1 ms and 10 µs a row, however few micro-batches are joined."""
    found: calibration.Found = {
        ((0, 1), g, n): {"F": 0.0, "I": 0.0, "W": (1e-3 + 1e-5 * n * g) / g} for g in (1, 4) for n in rows
    }
    part = calibration._part_times(found, (0, 1), rows, [1, 4])
    for amount in (16, 64, 1000):
        assert part.joined(amount) == pytest.approx(1e-3 + 1e-5 * amount)


def test_a_process_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_measured_by", ("-c", "import sys; sys.exit(3)"))
    with pytest.raises(HostFailed, match="a process ended with code 3"):
        calibrate(digits(), 1)


def test_a_process_that_fails_before_it_is_ready_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It printed a traceback."""
    monkeypatch.setattr(calibration, "_measured_by", ("-c", "raise MemoryError('no room for BLAS')"))
    with pytest.raises(HostFailed) as caught:
        calibrate(digits(), 1)
    assert str(caught.value) == (
        "measuring on this host: a process ended with code 1: MemoryError: no room for BLAS; see that this host has "
        "memory and processes to spare, or plan from counted operations"
    )
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize("workers", [1, 3, 20])
def test_the_coordinator_s_work_is_measured_with_workers_that_only_answer(
    workers: int, clip_norm: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator_time, "_STEPS", 5)
    performed: list[TrainedStep | JudgedEvaluation] = []
    rows = Trainer.rows

    def counted(trainer: Trainer) -> Iterator[TrainedStep | JudgedEvaluation]:
        for row in rows(trainer):
            performed.append(row)
            yield row

    monkeypatch.setattr(Trainer, "rows", counted)
    spec = digits().replace(training__clip_norm=clip_norm)
    assert coordinator_time.coordinator_seconds(spec, workers) > 0
    assert [row.step for row in performed] == [1, 2, 3, 4, 5]
    assert len(performed[0].reports if isinstance(performed[0], TrainedStep) else ()) == min(workers, 7)


# plan -----------------------------------------------------------------------------------------------------------------


def test_plan_compares_a_prediction_with_a_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = EXAMPLES / "digits.yaml"
    trained = pipetrain_here("train", job, "--local", "--stages", "2", "--set", "training.epochs=3", "--run-dir", run)
    assert trained.returncode == 0, trained.stderr
    shown = pipetrain_here("plan", "--compare", run)
    assert shown.returncode == 0, shown.stderr
    for words in ("predicted from times measured here: a step takes", "most of the difference:", "→", "worker 1"):
        assert words in shown.stdout
    line = re.search(
        r"predicted ([\d,.]+) ms a step, measured ([\d,.]+) ms.*: the prediction is ([\d.]+)% too (\w+)", shown.stdout
    )
    assert line is not None
    predicted, measured, off = (float(figure.replace(",", "")) for figure in line.groups()[:3])
    assert off == pytest.approx(100 * abs(predicted / measured - 1), abs=0.5), "a share of what was measured"
    assert (line[4] == "long") == (predicted > measured)


def test_plan_says_what_nothing_was_measured_for() -> None:
    plain = pipetrain_here("plan", EXAMPLES / "digits.yaml", "--json")
    assert json.loads(plain.stdout)["prediction"] == {"source": "counted"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "error: JOB.yaml: missing, must be a job file"),
        (["--compare", "."], "error: --compare: . is no run directory: it has no job.yaml"),
    ],
)
def test_plan_without_a_job_or_a_run_is_one_line(
    arguments: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = pipetrain_here("plan", *arguments)
    assert (refused.returncode, refused.stderr.strip()) == (2, line)


def test_a_link_that_was_not_measured_is_one_line() -> None:
    spec = digits()
    times = replace(estimated_times(spec, cores=2), host_of=(0, 1))
    lines = list(prediction_lines(predicted_step(make_blueprint(spec, 1438), times), times, 64))
    assert lines[1] == "links between hosts were not measured: those of the 2 hosts count as links of one host"


def test_ctrl_c_does_not_reach_measuring_processes() -> None:
    with calibration._Processes(digits(), 1, 1) as processes:
        (process,) = processes._processes
        assert os.getpgid(process.pid) == process.pid  # a terminal signals its own group


def test_a_measuring_process_ends_in_silence_with_the_one_that_asks() -> None:
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "cluster.run.calibrating"]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(digits().document()) + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == '"ready"\n'
        process.stdout.close()
        _, told = process.communicate('{"do": "copy", "n_bytes": 8}\n', timeout=60)
    assert (process.returncode, told) == (0, "")


# what a run has recorded ----------------------------------------------------------------------------------------------


def account(step: int, us: int, workers: int = 2) -> dict[str, Any]:
    """A line of accounts.jsonl in which every kind of time took `us` microseconds."""
    rows = {"wall_us": [12 * us] * workers, "stage_us": [[us] * 8] * workers, "worker_us": [[us] * 4] * workers}
    return {"step": step, **rows}


def run_folder(folder: Path, lines: list[dict[str, Any]], *, workers: int = 2) -> Path:
    events: list[dict[str, Any]] = [
        {"event": "starting", "bounds": list(range(workers + 1)), "placement": list(range(workers))},
        {"event": "started", "workers": [{"worker": w, "node": f"n{w % 2}", "cores": 4} for w in range(workers)]},
    ]
    (folder / "job.yaml").write_text("")
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (folder / "accounts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "metrics.jsonl").write_text("")
    return folder


def test_the_mean_step_leaves_out_the_first_line_and_the_time_after_the_last_step(tmp_path: Path) -> None:
    lines = [account(1, 9_000_000), account(2, 9_000_100), account(6, 9_000_500), account(6, 99_000_000)]
    found = recorded_steps(run_folder(tmp_path, lines), 64)
    assert (found.steps.steps, found.cores, found.host_of) == (4, 4, (0, 1))
    for row in found.steps.by_worker:
        assert row == pytest.approx({cause: 300e-6 if cause == "wait" else 100e-6 for cause in COMPARED})


def test_steps_of_an_earlier_layout_do_not_count(tmp_path: Path) -> None:
    before = [account(1, 10, 3), account(2, 20, 3)]
    after = [account(3, 1_000), account(4, 2_000), account(5, 3_000), account(6, 4_000)]
    found = recorded_steps(run_folder(tmp_path, before + after), 64)
    assert found.steps.by_worker[0]["forward"] == pytest.approx(1e-3)


def test_a_run_of_too_few_steps_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match="has made too few steps to be compared"):
        recorded_steps(run_folder(tmp_path, [account(1, 10), account(2, 20)]), 64)


def test_a_run_that_made_no_step_in_its_last_layout_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match="has made no step in its last layout"):
        recorded_steps(run_folder(tmp_path, [account(step, 10 * step, 3) for step in range(1, 7)]), 64)


@pytest.mark.parametrize("made_a_step", [False, True])
def test_steps_before_a_layout_of_as_many_stages_do_not_count(made_a_step: bool, tmp_path: Path) -> None:
    """Such a layout has other bounds; its first account comes after its first steps."""
    lines = [{**account(step, 100 * step), "ended": 1000.0 + step} for step in range(1, 7)]
    if made_a_step:
        lines += [{**account(step, 7 * (step - 6)), "ended": 1000.0 + step} for step in range(7, 11)]
    run_folder(tmp_path, lines)
    time = "1970-01-01T00:16:46.500+00:00"
    event = {"time": time, "event": "laid out anew", "bounds": [0, 2, 7], "placement": [0, 1]}
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\n")
    if made_a_step:
        found = recorded_steps(tmp_path, 64)
        assert found.bounds == (0, 2, 7)
        assert found.steps.by_worker[0]["forward"] == pytest.approx(7e-6)
    else:
        with pytest.raises(UserMistake, match="has made no step in its last layout"):
            recorded_steps(tmp_path, 64)


def metrics(folder: Path, *rows: tuple[int, int, int]) -> None:
    """Write rows of metrics: the last step, how many steps, their samples."""
    lines = [
        {"step": step, "samples": samples, "seconds": samples / 1e3} | ({"steps": steps} if steps > 1 else {})
        for step, steps, samples in rows
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_small_last_batch_of_an_epoch_is_left_out_of_all_that_is_compared(tmp_path: Path) -> None:
    """Epochs of two full batches and one of a quarter, which takes a quarter of the time."""
    total, lines, rows = 0, list[dict[str, Any]](), list[tuple[int, int, int]]()
    for step in range(1, 13):
        small = step % 3 == 0
        total += 100 if small else 400
        lines.append(account(step, total))
        rows.append((step, 1, 16 if small else 64))
    metrics(run_folder(tmp_path, lines), *rows)
    found = recorded_steps(tmp_path, 64)
    assert found.steps.by_worker[0]["forward"] == pytest.approx(400e-6)
    assert (found.steps.steps, found.steps.others) == (6, 0)
    assert found.median == 0.064


def test_if_every_line_has_a_small_batch_the_comparison_says_so(tmp_path: Path) -> None:
    lines = [account(step, 100 * step) for step in range(3, 16, 3)]
    metrics(run_folder(tmp_path, lines), *((step, 3, 144) for step in range(3, 16, 3)))
    found = recorded_steps(tmp_path, 64)
    assert (found.steps.steps, found.steps.others, found.median) == (6, 2, None)
    spec = digits()
    step = predicted_step(make_blueprint(spec, 1438), estimated_times(spec, cores=2))
    told = list(comparison_lines(compare(step, found.steps), None, found.steps))
    assert told[1] == (
        "33.3% of the measured steps have another number of rows than the predicted one, and count in their mean"
    )
