"""The journey of the README, with commands alone."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from cluster.actors.host_processes import command_line, in_session
from cluster.client import Client
from stages.errors import NoService
from tests.jobs import EXAMPLES, PIPETRAIN, pipetrain
from tests.service.conftest import JobMaker
from tests.service.running import Service, until, wait_for

KEYS = {"id", "name", "state", "reason", "step", "steps_total", "loss", "submitted_at", "started_at", "ended_at"}


def _json(service: Service, *arguments: str) -> object:
    done = service.run(*arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_whole_journey(service: Service, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3))
    table = np.column_stack([x, x @ [1.0, -2.0, 0.5]])
    np.savetxt(tmp_path / "houses.csv", table, delimiter=",", header="a,b,c,price", comments="")
    job_file = {
        "name": "houses",
        "model": {"input": [3], "layers": [{"linear": {"units": 8}}, "relu", {"linear": {"units": 1}}], "loss": "mse"},
        "data": {"source": "houses.csv", "target": "price"},
        "training": {"epochs": 20, "batch_size": 32, "optimizer": {"sgd": {"learning_rate": 0.05}}},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job_file))

    followed = service.run("submit", tmp_path / "job.yaml", "--stages", "2", "--json")
    assert followed.returncode == 0, followed.stderr
    assert "houses.csv" in followed.stderr
    *rows, last = [json.loads(line) for line in followed.stdout.splitlines()]
    assert last.keys() >= KEYS
    assert (last["state"], last["step"], last["steps_total"]) == ("SUCCEEDED", 160, 160)
    assert [row["step"] for row in rows if row["kind"] == "step"] == list(range(1, 161))
    (tmp_path / "houses.csv").rename(tmp_path / "moved.csv")  # the service has a copy by now
    job = last["id"]

    listed = _json(service, "list", "-o", "json", "--name", "houses")
    assert isinstance(listed, list)
    assert [found["id"] for found in listed] == [job]
    assert listed[0].keys() >= KEYS
    assert _json(service, "status", job[:6], "--json") == listed[0]
    described = service.run("describe", job)
    assert described.returncode == 0
    for word in ("submitted", "admitted", "started", "finished", "houses.csv"):
        assert word in described.stdout
    assert "ended at step 160 of 160" in service.run("logs", job).stdout
    metrics = service.run("metrics", job, "--json").stdout.splitlines()
    assert [json.loads(line) for line in metrics] == rows
    assert service.run("wait", job).returncode == 0
    assert "SUCCEEDED" in service.run("list").stdout
    assert service.run("list", "-o", "yaml", "--name", "houses").stdout.startswith("- ")
    assert job in service.run("top", "--once").stdout
    assert "2" in service.run("cluster").stdout

    fetched = service.run("fetch", job, "-o", tmp_path / "out")
    assert fetched.returncode == 0, fetched.stderr
    (tmp_path / "moved.csv").rename(tmp_path / "houses.csv")
    evaluated = json.loads(pipetrain("evaluate", tmp_path / "out", "--json").stdout)
    assert evaluated["loss"] == pytest.approx(last["validation_loss"], rel=1e-5)

    again = service.run("submit", tmp_path / "job.yaml", "--no-wait")
    assert again.returncode == 0
    second = again.stdout.strip()
    digest = hashlib.sha256((tmp_path / "houses.csv").read_bytes()).hexdigest()
    assert [kept.name for kept in service.home.uploads.glob(f"*{digest}*")] == [f"{digest}.csv"], "it is kept once"
    assert service.run("wait", second).returncode == 0
    assert service.run("delete", second).returncode == 0
    unknown = service.run("status", second)
    assert unknown.returncode == 2
    assert len(unknown.stderr.splitlines()) == 1


def test_a_mistake_in_the_job_file_is_told_before_anything_is_sent(service: Service, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text((EXAMPLES / "digits.yaml").read_text().replace("epochs", "epohcs"))
    before = len(service.client.list())
    done = service.run("submit", tmp_path / "job.yaml")
    assert done.returncode == 2
    assert "did you mean epochs?" in done.stderr
    assert len(service.client.list()) == before


def test_no_service_is_one_line_with_the_address(tmp_path: Path) -> None:
    done = pipetrain("list", "--home", tmp_path)
    assert done.returncode == 2
    assert "pipetrain up" in done.stderr
    done = pipetrain("list", "--home", tmp_path, "--address", "127.0.0.1:1")
    assert done.returncode == 2
    assert "127.0.0.1:1" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_ctrl_c_leaves_the_job_running(service: Service, small: JobMaker, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(small(100_000, name="left-alone")))
    following = subprocess.Popen(
        [PIPETRAIN, "submit", str(tmp_path / "job.yaml"), "--home", str(service.folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert following.stderr is not None
    assert any(": left-alone on 1 worker" in line for line in following.stderr), "`--no-wait` does not follow the job"
    wait_for(lambda: bool(service.client.list(["RUNNING"], "left-alone")), "it does not run")
    following.send_signal(signal.SIGINT)
    _, errors = following.communicate(timeout=120)
    assert following.returncode == 130
    (job,) = service.client.list(["RUNNING"], "left-alone")
    assert f"pipetrain stop {job.id}" in errors
    job.stop(now=True).wait(timeout=120)


def test_up_in_the_foreground_ends_with_ctrl_c_and_leaves_no_process(tmp_path: Path) -> None:
    home = tmp_path / "home"
    up = subprocess.Popen(
        [PIPETRAIN, "up", "--home", str(home), "--workers", "1", "--grpc-port", "0", "--http-port", "0"],
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: (home / "service.json").exists() and Client(home=home).cluster().ray == "up", "it is not up")
    head = json.loads((home / "ray.json").read_text())
    service = json.loads((home / "service.json").read_text())["pid"]
    up.send_signal(signal.SIGINT)
    _, errors = up.communicate(timeout=120)
    assert up.returncode == 0
    assert errors.endswith("stopping\ndown\n")
    assert in_session(head["session"]) == []
    assert command_line(service) == b""
    assert not Path(head["folder"]).exists()
    with pytest.raises(NoService, match="pipetrain up"):
        Client(home=home).list()


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
    nodes = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.two_nodes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**environment, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"},
        cwd=Path(__file__).parents[2],
    )
    assert nodes.stdout is not None
    lines = (line.strip() for line in nodes.stdout)
    yield next(line for line in lines if line.count(":") == 1 and line.rpartition(":")[2].isdigit())
    nodes.communicate(timeout=60)


def test_a_joined_cluster_brings_data_and_logs_to_and_from_other_nodes(
    two_nodes: str, tmp_path: Path, small: JobMaker
) -> None:
    service = Service(tmp_path / "home", "--ray-address", two_nodes)
    service.up()
    try:
        assert len(service.client.cluster().nodes) == 2
        job = service.client.submit(small(3, pipeline__stages=2)).wait(timeout=120)
        assert job.state == "SUCCEEDED", job.reason
        (started,) = (event for event in job.events() if event.kind == "started")
        assert len({worker["node"] for worker in started.details["workers"]}) == 2
        ready = {worker for worker, line in job.logs() if "ready: stages" in line}
        assert ready == {0, 1}
        long = until(service.client.submit(small(100_000, pipeline__stages=2)), "RUNNING")
    finally:
        said = service.down()
    assert "1 job to start again" in said
    service.up()
    try:
        again = until(service.client.get(long.id), "RUNNING")
        assert again.attempt == 2
        events = {event.kind: event for event in again.events()}
        assert events["stopped"].details["step"] == events["resumed"].details["step"] > 0, "it saved before the end"
        assert again.stop().wait(timeout=120).state == "STOPPED"
    finally:
        service.down()
