from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs import EXAMPLES, PIPETRAIN, pipetrain

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that the second node does not see."""
    return tmp_path_factory.mktemp("apart")


@pytest.fixture(scope="module")
def address(apart: Path) -> Iterator[str]:
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_AUTH_TOKEN", None)
    nodes = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.two_nodes", *([str(apart)] if os.geteuid() == 0 else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
    )
    assert nodes.stdout is not None
    lines = (line.strip() for line in nodes.stdout)
    found = next((line for line in lines if line.count(":") == 1 and line.rpartition(":")[2].isdigit()), None)
    assert found is not None, "the two nodes did not start; see standard error"
    yield found
    nodes.communicate(timeout=60)


def _run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")} | variables
    return subprocess.run(
        [PIPETRAIN, *arguments], capture_output=True, text=True, timeout=250, env=environment, check=False
    )


def _nodes(run: Path) -> int:
    """Return how many nodes had workers of a run."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    (started,) = (event for event in events if event["event"] == "started")
    return len({worker["node"] for worker in started["workers"]})


def test_two_nodes_train_over_encrypted_tcp_bitwise_the_weights_of_threads(address: str, tmp_path: Path) -> None:
    job, few = str(EXAMPLES / "digits.yaml"), ["--stages", "2", "--set", "training.epochs=2"]
    done = _run("train", job, *few, "--address", address, "--run-dir", str(tmp_path / "two"), RAY_AUTH_MODE="disabled")
    assert done.returncode == 0, done.stderr
    assert _nodes(tmp_path / "two") == 2
    assert pipetrain("train", job, *few, "--local", "--run-dir", tmp_path / "one").returncode == 0
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("two", "one")]
    assert models[0] == models[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="a folder is hidden from one node only with root's mounts")
def test_a_worker_that_does_not_have_the_folder_writes_and_reads_checkpoints_through_the_driver(
    address: str, apart: Path, tmp_path: Path
) -> None:
    job, run = str(EXAMPLES / "digits.yaml"), apart / "run"
    few = ["--stages", "2", "--set", "training.epochs=1", "--set", "checkpoint.every_steps=10"]
    done = _run("train", job, *few, "--address", address, "--run-dir", str(run), RAY_AUTH_MODE="disabled")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert _nodes(run) == 2
    assert not [event for event in events if event["event"] == "checkpoint not saved"]
    assert pipetrain("checkpoints", "verify", run).returncode == 0
    assert len(list((run / "checkpoints" / "step-00000023").glob("layer-*.safetensors"))) == 3
    more = ["--set", "training.epochs=2", "--schedule", "gpipe"]
    done = _run("resume", str(run), *more, "--address", address, RAY_AUTH_MODE="disabled")
    assert done.returncode == 0, done.stderr
    whole: list[str | Path] = [
        "--local",
        "--stages",
        "1",
        "--set",
        "training.epochs=2",
        "--run-dir",
        tmp_path / "whole",
    ]
    assert pipetrain("train", job, *whole).returncode == 0
    models = [(folder / "model.safetensors").read_bytes() for folder in (run, tmp_path / "whole")]
    assert models[0] == models[1]


def test_a_cluster_that_is_too_small_says_so_at_once(address: str, tmp_path: Path) -> None:
    job = str(EXAMPLES / "digits.yaml")
    done = _run("train", job, "--address", address, "--run-dir", str(tmp_path / "run"), RAY_AUTH_MODE="disabled")
    assert done.returncode == 2
    assert "the job needs 4 CPUs (4 workers of 1), the cluster has 2" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
