"""A cable between hosts is cut in the middle of a step: found soon, told as that, and made good."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.cluster.hosts_apart import ADDRESS, POSSIBLE, Hosts, hosts_apart
from tests.jobs import PIPETRAIN, pipetrain

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not POSSIBLE, reason="network namespaces need root and ip(8)"),
]
_HANG_TIMEOUT = 150.0
_STEPS = 80  # the cut must come before the end, also if this process has to wait for a core


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with hosts_apart() as made:
        yield made


def write_job(folder: Path, steps: int) -> Path:
    """A job of two workers, with steps long enough that a cut is in the middle of one."""
    rows = np.random.default_rng(0).normal(size=(256, 512)).astype(np.float32)
    np.savez(folder / "rows.npz", x=rows, y=rows[:, :1])
    layers: list[Any] = [*([{"linear": {"units": 512}}, "relu"] * 4), {"linear": {"units": 1}}]
    document = {
        "name": "cut",
        "model": {"input": [512], "layers": layers, "loss": "mse"},
        "data": {"source": str(folder / "rows.npz"), "validation": 0},
        "training": {
            "steps": steps,
            "batch_size": 256,
            "micro_batches": 8,
            "optimizer": {"sgd": {"learning_rate": 0.001}},
        },
        "pipeline": {"stages": 2},
        "resources": {"hang_timeout": _HANG_TIMEOUT},
        "checkpoint": {"every_steps": 5},
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def run_events(run: Path, *kinds: str) -> list[Mapping[str, Any]]:
    try:
        lines = (run / "events.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [event for event in map(json.loads, lines) if event["event"] in kinds]


def _await(found: Any, process: subprocess.Popen[bytes], within_s: float = 240) -> Any:
    """Wait until `found()` is true, and return it; the process must not end before."""
    deadline = time.monotonic() + within_s
    while not (result := found()):
        assert process.poll() is None, "the run ended"
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)
    return result


def begin_run(hosts: Hosts, run: Path, job: Path) -> subprocess.Popen[bytes]:
    """Start a run, and return when it has made a few steps."""
    train = hosts.start("head", [str(PIPETRAIN), "train", str(job), "--address", ADDRESS, "--run-dir", str(run)])
    rows = run / "metrics.jsonl"
    _await(lambda: rows.exists() and rows.read_bytes().count(b"\n") >= 6, train)
    return train


def test_a_cut_link_is_told_as_that_and_the_run_goes_on_exactly_when_it_is_back(hosts: Hosts, tmp_path: Path) -> None:
    job, run = write_job(tmp_path, _STEPS), tmp_path / "run"
    train = begin_run(hosts, run, job)
    hosts.cut()
    cut_at = time.time()
    (lost,) = _await(lambda: run_events(run, "worker lost"), train)
    hosts.cut(cut=False)
    assert lost["loss"] == "link lost"
    assert lost["cause"].startswith("the link between worker ")
    assert " is lost: worker " in lost["cause"]
    assert "no byte of it arrives" in lost["cause"]
    assert datetime.fromisoformat(lost["time"]).timestamp() - cut_at < _HANG_TIMEOUT / 3
    assert train.wait(300) == 0
    (recovered,) = run_events(run, "recovered")
    assert recovered["workers"] == [], "both workers stay"
    assert all(event["identical"] for event in run_events(run, "caught up"))
    assert pipetrain("train", job, "--local", "--run-dir", tmp_path / "whole").returncode == 0
    models = [(folder / "model.safetensors").read_bytes() for folder in (run, tmp_path / "whole")]
    assert models[0] == models[1]


def test_the_workers_of_a_host_whose_cable_is_pulled_start_elsewhere_at_once_and_never_come_back(
    hosts: Hosts, tmp_path: Path
) -> None:
    run, joining = tmp_path / "run", hosts.join("head")
    _await(lambda: hosts.nodes() == 4, joining)
    train = begin_run(hosts, run, write_job(tmp_path, 100_000))
    rows, (started,) = run / "metrics.jsonl", run_events(run, "started")
    pids = {at["pid"] for at in started["workers"]}
    cut_off = next(host for host in ("a", "b") if pids.intersection(hosts.processes(host)))
    (old,) = pids.intersection(hosts.processes(cut_off))
    hosts.pull(cut_off)
    pulled_at = time.time()
    (lost,) = _await(lambda: run_events(run, "worker lost"), train)
    assert lost["loss"] == "cut off"
    assert " is cut off: no answer within " in lost["cause"]
    assert "its host cannot be reached" in lost["cause"]
    assert lost["worker"] in {at["worker"] for at in started["workers"]}
    assert datetime.fromisoformat(lost["time"]).timestamp() - pulled_at < _HANG_TIMEOUT / 3
    (recovered,) = _await(lambda: run_events(run, "recovered"), train)
    assert hosts.nodes() == 4, "Ray still takes the node for alive"
    assert [at["worker"] for at in recovered["workers"]] == [0, 1], "all workers are new"
    nodes = {at["node"] for at in started["workers"]}
    assert len({at["node"] for at in recovered["workers"]} - nodes) == 1
    hosts.pull(cut_off, out=False)
    enough = rows.read_bytes().count(b"\n") + 10
    _await(lambda: old not in hosts.processes(cut_off), train)
    _await(lambda: rows.read_bytes().count(b"\n") >= enough, train)
    train.send_signal(signal.SIGINT)
    assert train.wait(300) == 130
    (stopped,) = run_events(run, "stopped")
    assert len(run_events(run, "worker lost")) == 1
    assert all(event["identical"] for event in run_events(run, "caught up"))
    whole: list[str | Path] = ["--set", f"training.steps={stopped['step']}", "--run-dir", tmp_path / "whole"]
    assert pipetrain("train", tmp_path / "job.yaml", "--local", *whole).returncode == 0
    models = [(folder / "model.safetensors").read_bytes() for folder in (run, tmp_path / "whole")]
    assert models[0] == models[1]
