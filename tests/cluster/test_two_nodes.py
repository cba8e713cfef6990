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
def address() -> Iterator[str]:
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_AUTH_TOKEN", None)
    nodes = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.two_nodes"],
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


def test_two_nodes_train_over_encrypted_tcp_bitwise_the_weights_of_threads(address: str, tmp_path: Path) -> None:
    job, few = str(EXAMPLES / "digits.yaml"), ["--stages", "2", "--set", "training.epochs=2"]
    done = _run("train", job, *few, "--address", address, "--run-dir", str(tmp_path / "two"), RAY_AUTH_MODE="disabled")
    assert done.returncode == 0, done.stderr
    started = json.loads((tmp_path / "two" / "events.jsonl").read_text().splitlines()[1])
    assert len({worker["node"] for worker in started["workers"]}) == 2
    assert pipetrain("train", job, *few, "--local", "--run-dir", tmp_path / "one").returncode == 0
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("two", "one")]
    assert models[0] == models[1]


def test_a_cluster_that_is_too_small_says_so_at_once(address: str, tmp_path: Path) -> None:
    job = str(EXAMPLES / "digits.yaml")
    done = _run("train", job, "--address", address, "--run-dir", str(tmp_path / "run"), RAY_AUTH_MODE="disabled")
    assert done.returncode == 2
    assert "the job needs 4 CPUs (4 workers of 1), the cluster has 2" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
