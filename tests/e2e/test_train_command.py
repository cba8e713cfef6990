from __future__ import annotations

import contextlib
import glob
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from stages.arrays import Array
from tests.jobs import EXAMPLES, PIPETRAIN, pipetrain, pipetrain_here

pytestmark = pytest.mark.timeout(400)
LONG_JOB = ["--set", "training.epochs=100000", "--stages", "2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train README's job with actors and a trace of two steps; return the run directory."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    done = pipetrain("train", EXAMPLES / "digits.yaml", "--run-dir", folder, "--trace", "2")
    assert done.returncode == 0, done.stderr
    assert f"run directory: {folder}" in done.stdout
    return folder


def test_the_whole_journey_of_the_readme(run: Path, tmp_path: Path) -> None:
    events = [json.loads(line)["event"] for line in (run / "events.jsonl").read_text().splitlines()]
    assert events == ["data", "starting", "started", "trace saved", "finished"]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "step"] == list(range(1, 691))
    evaluations = [row for row in rows if row["kind"] == "eval"]
    assert len(evaluations) == 30
    assert evaluations[-1]["accuracy"] >= 0.97
    assert yaml.safe_load((run / "job.yaml").read_text())["training"]["evaluate_batch_size"] == 64

    trace = json.loads((run / "trace.json").read_text())
    names = {e["pid"]: e["args"]["name"].split()[1] for e in trace if e["name"] == "process_name"}
    slices = [names[e["pid"]] for e in trace if e["ph"] == "X"]
    n_actions = 2 * 4 * 8 * 3  # steps × stages × micro-batches × (F, I, W)
    assert (slices.count("measured"), slices.count("predicted")) == (n_actions, n_actions)

    evaluated = pipetrain_here("evaluate", run, "--json")
    found = json.loads(evaluated.stdout)
    assert found["rows"] == 359
    assert found["accuracy"] == evaluations[-1]["accuracy"]
    assert found["loss"] == pytest.approx(evaluations[-1]["loss"], rel=1e-6)

    x = np.random.default_rng(0).uniform(size=(70, 64))
    np.savez(tmp_path / "x.npz", x=x)
    predicted = pipetrain_here("predict", run, "--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz")
    assert predicted.returncode == 0, predicted.stderr
    with np.load(tmp_path / "y.npz") as y:
        np.testing.assert_allclose(y["y"], _by_hand(load_file(run / "model.safetensors"), x), rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(y["label"], y["y"].argmax(axis=1))


def _by_hand(weights: dict[str, Array], x: Array) -> Array:
    h: Array = x.astype(np.float32)
    for k in (0, 2, 4):
        h = h @ weights[f"{k}.weight"].T + weights[f"{k}.bias"]
        h = np.maximum(h, 0) if k < 4 else h
    return h


def test_local_threads_leave_bitwise_the_model_of_the_actors(run: Path, tmp_path: Path) -> None:
    others = ["--local", "--stages", "2", "--schedule", "zb-h1"]
    done = pipetrain("train", EXAMPLES / "digits.yaml", "--run-dir", tmp_path / "local", *others)
    assert done.returncode == 0, done.stderr
    models = [(folder / "model.safetensors").read_bytes() for folder in (run, tmp_path / "local")]
    assert models[0] == models[1]


def test_ctrl_c_ends_cleanly_and_saves_what_was_reached(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = _start(run, *LONG_JOB, "--local")
    _wait_for_steps(run, 20, process)
    _ends_by_ctrl_c(process, run)


def _ends_by_ctrl_c(process: subprocess.Popen[str], run: Path) -> None:
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "stopped at step" in output
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if row["kind"] == "step"]
    assert steps == list(range(1, len(steps) + 1)), "no step is missing, and none is there twice"
    assert f"stopped at step {len(steps)} of" in output
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert events[-1]["event"] == "stopped"
    assert events[-1]["step"] == len(steps)
    assert pipetrain_here("evaluate", run).returncode == 0
    _nothing_is_left(process.pid)


def test_a_signal_for_all_processes_of_a_group_that_reaches_workers_first_does_not_cost_the_save(
    tmp_path: Path,
) -> None:
    """KempnerForge#177: SIGTERM reached the workers first, and the save never happened."""
    run = tmp_path / "run"
    process = _start(run, *LONG_JOB, start_new_session=True)
    _wait_for_steps(run, 20, process)
    (started,) = _events(run, "started")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        for worker in started["workers"]:
            os.kill(worker["pid"], number)
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143, errors
    (stopped,) = _events(run, "stopped")
    assert stopped["saved"]
    assert stopped["checkpoint"] == stopped["step"] >= 20
    assert not _events(run, "worker lost")
    assert (run / "checkpoints" / f"step-{stopped['step']:08d}" / "checkpoint.json").is_file()
    _nothing_is_left(process.pid)


def test_a_killed_worker_is_replaced_the_terminal_says_so_and_ctrl_c_ends_it_cleanly(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = _start(run, *LONG_JOB, "--set", "checkpoint.every_steps=10")
    _wait_for_steps(run, 20, process)
    (started,) = _events(run, "started")
    os.kill(started["workers"][1]["pid"], signal.SIGKILL)
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "is made again" in line or "are made again" in line or "no step is lost" in line:
            break
    (lost,), (recovered,) = _events(run, "worker lost"), _events(run, "recovered")
    assert lost["cause"].startswith(f"worker 1 (stage 1; process {started['workers'][1]['pid']} on")
    assert f"worker 1 is process {recovered['workers'][0]['pid']} on" in lines[-1]
    _ends_by_ctrl_c(process, run)


def _events(run: Path, kind: str) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [event for event in events if event["event"] == kind]


def test_without_recovery_a_killed_worker_ends_the_job_with_its_name_without_waiting_for_a_timeout(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    process = _start(run, *LONG_JOB, "--set", "recovery.max_restarts=0", "--set", "resources.hang_timeout=900")
    _wait_for_steps(run, 20, process)
    (started,) = _events(run, "started")
    os.kill(started["workers"][1]["pid"], signal.SIGKILL)
    errors = ""
    assert process.stderr is not None
    for line in process.stderr:
        errors += line
        if line.startswith("failed: "):
            break
    process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"failed: worker 1 (stage 1; process {started['workers'][1]['pid']} on" in errors
    assert "Traceback" not in errors
    last = json.loads((run / "events.jsonl").read_text().splitlines()[-1])
    assert last["event"] == "failed"
    assert last["cause"].startswith("worker 1 (stage 1;")
    _nothing_is_left(process.pid)


def test_a_killed_driver_leaves_no_process(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = _start(run, *LONG_JOB)
    _wait_for_steps(run, 5, process)
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    (started,) = (event for event in events if event["event"] == "started")
    process.kill()
    process.communicate(timeout=120)
    _wait(
        lambda: not any(Path(f"/proc/{w['pid']}").exists() for w in started["workers"]), "workers outlived their driver"
    )


def test_the_model_that_does_not_fit_on_one_worker(tmp_path: Path) -> None:
    """That four workers can train it is tested by README's commands."""
    job = EXAMPLES / "too-big-for-one.yaml"
    refused = pipetrain_here("plan", job, "--stages", "1")
    assert refused.returncode == 2
    assert "TOO SMALL" in refused.stdout
    assert refused.stderr.startswith(
        "error: worker 0 (stage 0) needs 342.4 MiB, resources.memory_per_worker is 160 MiB"
    )
    assert pipetrain_here("train", job, "--stages", "1", "--run-dir", tmp_path / "no").returncode == 2
    forced = pipetrain("train", job, "--stages", "1", "--run-dir", tmp_path / "forced", "--force")
    assert forced.returncode == 1
    assert "MemoryError: Unable to allocate" in forced.stderr
    assert "resources.memory_per_worker allows 167,772,160 bytes" in forced.stderr.splitlines()[-1]


def _start(run: Path, *options: str, start_new_session: bool = False) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [PIPETRAIN, "train", str(EXAMPLES / "digits.yaml"), "--run-dir", str(run), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=start_new_session,
    )


def _wait_for_steps(run: Path, steps: int, process: subprocess.Popen[str]) -> None:
    def there() -> bool:
        assert process.poll() is None, process.communicate()[1]
        metrics = run / "metrics.jsonl"
        return metrics.exists() and len(metrics.read_text().splitlines()) >= steps

    _wait(there, f"no {steps} steps")


def _wait(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


def _nothing_is_left(pid: int) -> None:
    assert not glob.glob(f"{tempfile.gettempdir()}/pipetrain-{pid}-*")
    _wait(lambda: not _processes_of(pid), f"processes of {pid} are left")


def _processes_of(pid: int) -> list[bytes]:
    """Return command lines of the processes of an embedded cluster. Processes that Ray has killed may exist a moment
    longer."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(file.read_bytes())
    return [command for command in found if f"pipetrain-{pid}-".encode() in command]
