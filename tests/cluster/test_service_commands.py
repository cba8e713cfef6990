"""The commands of the job service with scripted answers: a fake client replaces the service."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import click
import pytest
from click.testing import CliRunner

from cluster.cli import cli
from cluster.client import Client
from cluster.client.address import command_for
from cluster.service.home import Home
from stages.errors import InvalidJob, NoService, UnknownJob, UserMistake
from tests.jobs import EXAMPLES, digits_job, pipetrain


class _Job:
    """A job that has ended with an exit code, or never ends."""

    reason = ""

    def __init__(self, job_id: str, exit_code: int | None) -> None:
        self.id, self.exit_code, self.name = job_id, exit_code, job_id
        self.done = exit_code is not None
        self.state = {None: "RUNNING", 0: "SUCCEEDED", 130: "STOPPED"}[exit_code]
        self.step, self.steps_total, self.validation_loss, self.validation_accuracy = 1, 2, None, None
        self.loss = None
        self.validation_perplexity = self.validation_bits_per_byte = None

    def delete(self) -> None:
        _Client.deleted.append(self.id)

    def events(self) -> list[Any]:
        return []

    def watch(self, **_: Any) -> Iterator[Any]:
        raise TimeoutError


class _Client:
    """A client of a service with these `jobs`."""

    jobs: dict[str, _Job]
    deleted: list[str]

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def get(self, job_id: str) -> _Job:
        if job_id[0] not in self.jobs:
            raise UnknownJob(f"no job has the id {job_id}")
        return self.jobs[job_id[0]]


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> dict[str, _Job]:
    _Client.deleted = []
    _Client.jobs = {"r": _Job("r", None), "s": _Job("s", 130), "d": _Job("d", 0)}
    monkeypatch.setattr("cluster.client.Client", _Client)
    return _Client.jobs


@pytest.mark.parametrize(
    ("answer", "speaks"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "HTTP/1"),
        (b"SSH-2.0-OpenSSH_9.6\r\n" * 9, "something else"),
    ],
)
def test_a_port_that_does_not_speak_grpc_is_told_from_a_service_that_is_away(answer: bytes, speaks: str) -> None:
    class Foreign(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1000)
            self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Foreign) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        address = f"127.0.0.1:{server.server_address[1]}"
        with Client(address, token="t") as client, pytest.raises(NoService) as caught:
            client.list()
        server.shutdown()
    assert caught.value.problems == (
        f"{address} speaks {speaks}, not gRPC: is it the dashboard's port? The gRPC port is 7070 by default",
    )


@pytest.mark.usefixtures("jobs")
@pytest.mark.parametrize(("ids", "code"), [("r", 124), ("r s", 124), ("s r", 124), ("d s", 130), ("d", 0)])
def test_wait_ends_with_124_whenever_the_timeout_ran_out(ids: str, code: int) -> None:
    done = CliRunner().invoke(cli, ["wait", *ids.split(), "--timeout", "0"], standalone_mode=False)
    assert done.return_value == code, done.output


@pytest.mark.usefixtures("jobs")
@pytest.mark.parametrize(
    "command",
    [
        ("wait", "d", "--timeout", "nan"),
        ("train", "job.yaml", "--grace", "nan"),
        ("chaos", "slow", "job.yaml", "--worker", "0", "--seconds", "nan"),
    ],
    ids=lambda command: command[0],
)
def test_a_time_that_is_no_number_is_a_mistake(command: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli, command, standalone_mode=False)
    assert isinstance(done.exception, click.BadParameter)
    assert done.exception.message == "nan is not a number."


def test_a_hint_names_the_home_where_the_command_would_take_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPETRAIN_HOME", str(tmp_path / "usual"))
    assert command_for(tmp_path / "usual", "down") == "pipetrain down"
    assert command_for(tmp_path / "an other", "down") == f"pipetrain down --home '{tmp_path}/an other'"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIPETRAIN_HOME", "usual")
    assert command_for(tmp_path / "usual", "down") == "pipetrain down"
    monkeypatch.delenv("PIPETRAIN_HOME")
    assert command_for(Path("~/.pipetrain").expanduser(), "up") == "pipetrain up"


@pytest.mark.parametrize("named", [True, False])
def test_up_where_a_service_is_says_how_to_stop_that_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    home = Home(tmp_path / "home")
    home.make()
    if not named:
        monkeypatch.setenv("PIPETRAIN_HOME", str(home.folder))
    with home.locked():
        done = CliRunner().invoke(cli, ["up", *(["--home", str(home.folder)] if named else [])])
    command = f"pipetrain down --home {home.folder}" if named else "pipetrain down"
    assert isinstance(done.exception, UserMistake)
    assert done.exception.problems[0].endswith(f"; `{command}` stops it")


@pytest.mark.parametrize("command", ["cluster", "top"])
def test_memory_of_a_node_is_told_as_what_is_reserved(command: str) -> None:
    told = " ".join(CliRunner().invoke(cli, [command, "--help"]).output.split())
    assert "CPUS and MEMORY show how much of a node jobs have reserved" in told


@pytest.mark.usefixtures("jobs")
def test_delete_takes_a_job_once_however_often_it_is_named() -> None:
    done = CliRunner().invoke(cli, ["delete", "s", "s", "nobody", "d", "s1"], standalone_mode=False)
    assert _Client.deleted == ["s", "d"]
    assert (done.return_value, done.stdout) == (2, "deleted s (s)\ndeleted d (d)\n")


def test_a_wrong_override_is_told_by_the_name_that_the_caller_knows() -> None:
    with Client("127.0.0.1:1", token="t") as client:
        for job in (EXAMPLES / "digits.yaml", digits_job()):
            with pytest.raises(InvalidJob) as caught:
                client.submit(job, overrides=["x"])
            assert caught.value.problems[0].startswith("overrides: 'x': must be path=value")


def test_up_takes_no_folder_over_that_is_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    tmp_path.chmod(0o755)
    done = pipetrain("up", "--home", tmp_path, "--detach")
    assert done.returncode == 2
    said = f"error: --home {tmp_path}: is not the home of a service, and is not empty (it has notes.txt)"
    assert done.stderr.startswith(said)
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_up_does_not_start_with_a_token_that_lets_everybody_in(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.make()
    home.token_file.touch()
    (home.folder / "service.lock").touch()
    done = pipetrain("up", "--home", home.folder, "--grpc-port", "0", "--http-port", "0", "--detach")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"error: {home.token_file}: is empty, must have at least 32")
    assert len(done.stderr.splitlines()) == 1
