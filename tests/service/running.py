"""A service as users start it: `pipetrain up` with a home of its own, on loopback, at free ports."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cluster.client import Client, Job
from cluster.service.faults import VARIABLE
from cluster.service.home import Home
from coordinator.train.rows import Row, StepRow
from tests.jobs import PIPETRAIN
from tests.ports import free_ports

SMALL: dict[str, Any] = {
    "name": "small",
    "seed": 3,
    "model": {"input": [4], "layers": [{"linear": {"units": 8}}, "tanh", {"linear": {"units": 1}}], "loss": "mse"},
    "data": {"source": ""},
    "training": {
        "epochs": 3,
        "batch_size": 16,
        "micro_batches": 2,
        "optimizer": {"sgd": {"learning_rate": 0.05}},
    },
    "pipeline": {"stages": 1},
}


class Service:
    """The service of one home. Each start may name a point at which the service kills itself."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self._options = folder, options
        self.home = Home(folder)
        self._ports = [str(port) for port in free_ports(2)]  # the same after each start, as for a user

    def up(self, kill_at: str = "") -> None:
        """Run `pipetrain up --detach`."""
        ports = ["--grpc-port", self._ports[0], "--http-port", self._ports[1]]
        command = [PIPETRAIN, "up", "--home", str(self.folder), *ports, "--detach"]
        done = self._run([*command, *self._options], {VARIABLE: kill_at} if kill_at else {})
        assert done.returncode == 0, done.stderr

    def down(self) -> str:
        """Run `pipetrain down`; return its output."""
        done = self._run([PIPETRAIN, "down", "--home", str(self.folder)], {})
        assert done.returncode == 0, done.stderr
        return done.stderr

    def run(self, *arguments: str | Path, timeout: float = 250) -> subprocess.CompletedProcess[str]:
        """Run another command with this service."""
        return self._run([PIPETRAIN, *map(str, arguments)], {"PIPETRAIN_HOME": str(self.folder)}, timeout)

    def _run(
        self, command: list[str], variables: Mapping[str, str], timeout: float = 200
    ) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_AUTH", "PIPETRAIN_"))} | dict(
            variables
        )
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment, check=False)

    @property
    def client(self) -> Client:
        """Return a client of it."""
        return Client(home=self.folder)

    @property
    def pid(self) -> int:
        """The process id of the service."""
        found = Home.read(self.home.service_file)
        assert found is not None, "no service is up"
        return int(found["pid"])

    def kill(self) -> None:
        """SIGKILL the service's process, and wait until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        self.await_death()

    def await_death(self) -> None:
        """Wait until no process holds the home's lock."""
        wait_for(lambda: not self.home.is_locked(), "the service still runs")

    def rows(self, job: Job, attempt: int | None = None) -> list[Mapping[str, Any]]:
        """Return the rows that the job's runner has written to disk, without an unfinished line."""
        name = "metrics.jsonl" if attempt is None else f"metrics.attempt-{attempt}.jsonl"
        text = (self.home.run_directory(job.id) / name).read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def wait_for(condition: Callable[[], bool], otherwise: str, seconds: float = 120) -> None:
    """Wait until a condition holds; fail if it does not hold in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)


def state_of(job: Job) -> str:
    """Return the job's present state."""
    return job.refresh().state


def until(job: Job, *states: str, seconds: float = 120) -> Job:
    """Wait until the job is in one of these states."""
    wait_for(lambda: state_of(job) in states, f"never {states}: {job!r}", seconds)
    return job


_LOW_PRIORITY = 5
"""Of processes that another one disturbs: about a third of the usual share."""


def in_background(job: Job) -> Job:
    """Give the workers of a running job, and with them the Ray that they belong to, a low priority. They would train
    for hours, and what is tested beside them would take twice as long."""
    events = [event for event in job.events() if event.kind in ("started", "recovered")]
    for pid in {worker["pid"] for event in events for worker in event.details["workers"]}:
        with contextlib.suppress(OSError):  # it was replaced, or a thread has ended
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.setpriority(os.PRIO_PROCESS, int(thread), _LOW_PRIORITY)
            # Linux may divide time among sessions first, and Ray has one of its own
            Path(f"/proc/{pid}/autogroup").write_text(str(_LOW_PRIORITY))
    return job


def steps(rows: list[Row]) -> list[int]:
    """Return the step numbers of a list of rows."""
    return [row.step for row in rows if isinstance(row, StepRow)]


def collect_without_gaps(events: list[Any]) -> list[str]:
    """Return the kinds of a job's events, whose numbers must be 1, 2, 3, …"""
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    return [event.kind for event in events]
