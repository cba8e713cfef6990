"""A job service to measure, in a temporary home on loopback, which is always removed at the end; and its clients."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from benchmarks import LEARNING_RATE, WORKERS
from benchmarks.processes import Processes
from cluster.actors.host_processes import command_line
from cluster.client import Client, Job
from cluster.service.home import Home

PIPETRAIN = str(Path(sys.executable).with_name("pipetrain"))
START_S = 200.0
END_S = 120.0
PATIENCE_S = 300.0
"""How long a measurement waits for its clients, in seconds."""
CLIENTS, LOAD_PROCESSES = 16, 2
_BEGIN_S = 2.0  # time for all clients to connect


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table."""

    what: str
    measured: str
    wanted: str = ""
    held: bool | None = None

    def __str__(self) -> str:
        verdict = {None: "", True: "yes", False: "**no**"}[self.held]
        return f"| {self.what} | {self.measured} | {self.wanted} | {verdict} |"


class Service:
    """`pipetrain up` in a home of its own; the end of `with` runs `down` and removes the home."""

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="pipetrain-service-"))
        self.home = Home(self.folder / "home")
        try:
            ports = ["--grpc-port", "0", "--http-port", "0", "--max-queued", "100000"]
            _run("up", "--home", str(self.home.folder), "--workers", str(WORKERS), *ports, "--detach", seconds=START_S)
            self.client = Client(home=self.home.folder)
            found = Home.read(self.home.service_file)
            assert found is not None, "up says that it is up"
            self.pid = int(found["pid"])
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.client.close()
        self._end()

    def _end(self) -> None:
        with uninterrupted():
            try:
                _run("down", "--home", str(self.home.folder), seconds=END_S)
            finally:
                shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def cpu_s(self) -> float:
        """CPU seconds of the service's process so far, in user mode and in the kernel."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def resident_mib(self) -> float:
        """Resident memory of the service's process."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024

    @contextlib.contextmanager
    def blocked(self) -> Iterator[None]:
        """In the context, a job holds all CPUs of Ray and computes nothing: its workers are stopped by a signal."""
        document = small_job(self.folder, epochs=1_000_000, stages=WORKERS, name="blocker")
        document["resources"] = {"hang_timeout": 100_000.0}
        job = self.client.submit(document, upload=False)
        pids: list[int] = []
        try:
            wait_for(lambda: job.refresh().step > 0, f"the blocker does not run: {job!r}")
            (started,) = (event for event in job.events() if event.kind == "started")
            pids = [int(worker["pid"]) for worker in started.details["workers"]]
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            with uninterrupted():
                job.stop(now=True).wait(timeout=60)
                wait_for(lambda: not any(b"Pipetrain" in command_line(pid) for pid in pids), f"{pids} are left", 30)

    def rows_text(self, job: Job) -> str:
        """Return what the job's runner wrote to metrics.jsonl."""
        return (self.home.run_directory(job.id) / "metrics.jsonl").read_text()


class Load:
    """Client processes of one service."""

    def __init__(self, service: Service, processes: int = LOAD_PROCESSES) -> None:
        self._service = service
        commands = [[sys.executable, "-m", "benchmarks.service_load"]] * processes
        self.processes = Processes("load", commands, {})
        self._n = processes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.processes.close()

    def order(self, **order: Any) -> list[Any]:
        """Send one order to all processes and return their answers."""
        text = json.dumps({"home": str(self._service.home.folder), **order})
        return self.processes.ask(text, PATIENCE_S)

    def submit(self, *, clients: int = CLIENTS, jobs: int | None = None, rate: float = 0, **more: Any) -> Submitted:
        """Let the clients submit small jobs: `jobs` in all, `rate` a second in all."""
        folder = self._service.folder / f"answers-{time.monotonic_ns()}"
        folder.mkdir()
        limits = {} if jobs is None else {"jobs": jobs // self._n}
        more = {"document": small_job(self._service.folder, epochs=1), "begin": time.time() + _BEGIN_S, **more}
        before = self._service.cpu_s
        answers = self.order(
            do="submit", clients=clients // self._n, rate=rate / self._n, into=str(folder), **limits, **more
        )
        service_cpu = self._service.cpu_s - before
        found = [json.loads(file.read_text()) for file in folder.iterdir()]
        ids = [job for part in found for job in part["ids"]]
        seconds = sorted(taken for part in found for taken in part["seconds"])
        lasted = max(answer["lasted"] for answer in answers)
        return Submitted(ids, seconds, lasted, service_cpu, sum(answer["cpu"] for answer in answers))


@dataclass(frozen=True, slots=True)
class Submitted:
    """The clients' result: ids, the seconds of each Submit in ascending order, and the CPU seconds of service and
    clients."""

    ids: Sequence[str]
    seconds: Sequence[float]
    lasted: float
    service_cpu: float
    clients_cpu: float

    def percentile_ms(self, share: float) -> float:
        """Return the milliseconds that this share of the calls did not exceed."""
        return 1000 * self.seconds[min(len(self.seconds) - 1, int(share * len(self.seconds)))]

    def __str__(self) -> str:
        n = len(self.ids)
        return (
            f"p50 {self.percentile_ms(0.5):.1f} ms, p99 {self.percentile_ms(0.99):.1f} ms, {n / self.lasted:.0f}/s; "
            f"CPU a job: service {1000 * self.service_cpu / n:.2f} ms, clients {1000 * self.clients_cpu / n:.2f} ms"
        )


def small_job(folder: Path, *, epochs: int, stages: int = 1, name: str = "small") -> dict[str, Any]:
    """Return a job with ten steps an epoch and almost no work."""
    layers = [{"linear": {"units": 8}}, "tanh", {"linear": {"units": 1}}]
    return _job(folder, name, width=4, outputs=1, rows=160, batch=16, layers=layers, epochs=epochs, stages=stages)


def wide_job(folder: Path, *, width: int, batch: int, steps: int, stages: int = WORKERS) -> dict[str, Any]:
    """Return a job with eight layers, as in the other measurements."""
    layers: list[object] = [{"linear": {"units": width}}, "relu"] * 8
    rows, epochs = 10 * batch, max(1, steps // 10)
    sizes: dict[str, Any] = {"width": width, "outputs": width, "rows": rows, "batch": batch}
    return _job(folder, f"mlp-{width}", layers=layers[:-1], epochs=epochs, stages=stages, micro_batches=8, **sizes)


def _job(
    folder: Path,
    name: str,
    *,
    width: int,
    outputs: int,
    rows: int,
    batch: int,
    layers: list[Any],
    epochs: int,
    stages: int,
    micro_batches: int = 2,
) -> dict[str, Any]:
    source = folder / f"{width}-{outputs}-{rows}.npz"
    if not source.exists():
        rng = np.random.default_rng(0)
        x, y = (rng.standard_normal((rows, features), dtype=np.float32) for features in (width, outputs))
        np.savez(source, x=x, y=y)
    return {
        "name": name,
        "seed": 3,
        "model": {"input": [width], "layers": layers, "loss": "mse"},
        "data": {"source": str(source)},
        "training": {
            "epochs": epochs,
            "batch_size": batch,
            "micro_batches": micro_batches,
            "optimizer": {"sgd": {"learning_rate": LEARNING_RATE}},
        },
        "pipeline": {"stages": stages},
    }


def wait_for(condition: Callable[[], bool], otherwise: str, seconds: float = 60, *, every_s: float = 0.05) -> None:
    """Wait until the condition holds. Raises TimeoutError if it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        time.sleep(every_s)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM in the context, which ends something within a limited time."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _run(*arguments: str, seconds: float) -> None:
    """Run a command of pipetrain in a session of its own, so that Ctrl-C reaches it only through this process.

    Raises RuntimeError with its stderr if it fails, and TimeoutError.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_AUTH", "PIPETRAIN_"))}
    process = subprocess.Popen(
        [PIPETRAIN, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        _, told = process.communicate(timeout=seconds)
    except BaseException as error:
        process.send_signal(signal.SIGINT)  # `up` then ends what it started
        with uninterrupted():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            raise TimeoutError(f"pipetrain {arguments[0]} took more than {seconds:g} s") from None
        raise
    if process.returncode:
        raise RuntimeError(f"pipetrain {arguments[0]}: {told}")
