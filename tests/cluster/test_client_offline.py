"""The client without a service: its errors, what it loads, and the job that it returns."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
from hypothesis import strategies as st

from cluster.cli import cli
from cluster.client import Client, Job
from cluster.client.address import ServiceAddress, find_service
from cluster.client.connection import RETRY_S, Connection, backoff
from cluster.client.failures import error_of
from cluster.client.upload import local_files
from cluster.wire import pipetrain_pb2 as pb
from coordinator.train.rows import EvalRow, StepRow
from stages.errors import InvalidJob, JobFailed, NoService, StageFailed, UserMistake
from tests.jobs import EXAMPLES, digits_job, pipetrain_here

COUNT = st.integers(0, 2**53)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
SHARE = st.none() | st.floats(0, 1)
STEPS = st.builds(
    StepRow,
    step=COUNT,
    epoch=COUNT,
    samples=COUNT,
    loss=NUMBER,
    seconds=NUMBER,
    grad_norm=NUMBER,
    learning_rate=NUMBER,
    bubble=NUMBER,
    accuracy=SHARE,
    attempt=st.integers(1, 100),
)
EVALUATIONS = st.builds(
    EvalRow, step=COUNT, epoch=COUNT, loss=NUMBER, accuracy=SHARE, samples=COUNT, attempt=st.integers(1, 100)
)


@pytest.fixture(autouse=True)
def _no_service_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PIPETRAIN_ADDRESS", "PIPETRAIN_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIPETRAIN_HOME", str(tmp_path / "home"))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home whose service was killed: its files are there, but no process listens."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "token").write_text("a-token\n")
    with socket.socket() as silent:  # while it is bound, no other process can listen there
        silent.bind(("127.0.0.1", 0))
        service = {"grpc": f"127.0.0.1:{silent.getsockname()[1]}", "pid": 1, "version": "0", "home": str(folder)}
        (folder / "service.json").write_text(json.dumps(service))
        yield folder


@pytest.fixture
def held(home: Path) -> Iterator[None]:
    """Hold the home's lock, as if its service were up but did not listen."""
    with (home / "service.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# where the service is ----------------------------------------------------------------------------------------------


def test_no_service_was_ever_started(tmp_path: Path) -> None:
    with pytest.raises(NoService) as caught:
        Client(home=tmp_path / "nowhere")
    assert caught.value.problems == (
        f"no service is up at {tmp_path / 'nowhere'}; start one with `pipetrain up --home {tmp_path / 'nowhere'}`, "
        "give --home (or PIPETRAIN_HOME) if yours has another home, or give its address",
    )


@pytest.mark.usefixtures("held")
def test_a_service_that_does_not_listen_is_told_at_once_with_its_address(home: Path) -> None:
    began = time.monotonic()
    with Client() as client, pytest.raises(NoService) as caught:
        client.submit(EXAMPLES / "digits.yaml")
    assert time.monotonic() - began < RETRY_S, "it was tried again"
    address = json.loads((home / "service.json").read_text())["grpc"]
    (line,) = caught.value.problems
    assert line.startswith(f"no service answers at {address} (connection refused")
    assert line.endswith("start one with `pipetrain up`")


@pytest.mark.usefixtures("held")
def test_a_service_that_is_up_and_takes_no_more_connections_is_not_told_to_be_started(home: Path) -> None:
    """The service has as many connections as its limit, and closes each further one at once."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        (home / "service.json").write_text(json.dumps({"grpc": address}))

        def turn_away() -> None:
            with contextlib.suppress(OSError):
                while True:
                    listening.accept()[0].close()

        thread = threading.Thread(target=turn_away, daemon=True)
        thread.start()
        with Client() as client, pytest.raises(NoService) as caught:
            client._connection.call("Cluster", pb.ClusterRequest(), again=False)
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(10)
    (line,) = caught.value.problems
    assert line.startswith(f"the service of {home} is up at {address}, but closed the connection: it has as many")
    assert line.endswith(f"{home}/logs/service.log says which")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"grpc": 7070}', b'{"grpc": null}', b"\xff\xfe", b"[" * 100_000, b'{"http": "x"}'],
)
def test_a_broken_service_file_is_named(home: Path, content: bytes) -> None:
    (home / "service.json").write_bytes(content)
    with pytest.raises(NoService) as caught:
        Client()
    (line,) = caught.value.problems
    assert str(home / "service.json") in line
    (home / "ray.json").write_bytes(content)
    ended = pipetrain_here("down", "--home", home)
    assert (ended.returncode, ended.stderr) == (0, f"nothing is up at {home}\n")


def test_down_never_says_down_of_a_service_that_it_cannot_find(home: Path) -> None:
    with (home / "service.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = pipetrain_here("down", "--home", home)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"failed: a process holds {home / 'service.lock'}, but its number is not in it")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"two words", b"two\nlines", "tökén".encode(), b"\xff", b"\x00"])
@pytest.mark.usefixtures("held")
def test_a_broken_token_file_is_named(home: Path, content: bytes) -> None:
    (home / "token").write_bytes(content)
    with pytest.raises(NoService) as caught:
        Client()
    (line,) = caught.value.problems
    assert line.startswith(f"{home / 'token'}: ")


@pytest.mark.parametrize(
    "address", ["", "localhost", ":7070", "host:", "host:0", "host:65536", "h:１", "http://h:1", "a b:1"]
)
def test_what_is_no_address_is_said_before_anything_is_sent(home: Path, address: str) -> None:
    with pytest.raises(NoService, match="must be HOST:PORT, such as"):
        Client(address)


@pytest.mark.usefixtures("held")
def test_arguments_stand_before_the_environment_and_that_before_files(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_files = find_service()
    assert (from_files.target, from_files.token) == (
        json.loads((home / "service.json").read_text())["grpc"],
        "a-token",
    )
    monkeypatch.setenv("PIPETRAIN_ADDRESS", "elsewhere:1")
    monkeypatch.setenv("PIPETRAIN_TOKEN", "of-the-environment")
    from_environment = find_service()
    assert (from_environment.target, from_environment.token) == ("elsewhere:1", "of-the-environment")
    given_both = find_service("[::1]:2", home, "given")
    assert (given_both.target, given_both.token) == ("[::1]:2", "given")
    assert not from_environment.is_here
    assert given_both.is_here


@pytest.mark.parametrize(
    "command",
    [
        ("list",),
        ("status", "k"),
        ("describe", "k"),
        ("logs", "k", "-f"),
        ("metrics", "k", "-f"),
        ("wait", "k", "l"),
        ("stop", "k"),
        ("delete", "k"),
        ("fetch", "k", "-o", "out"),
        ("cluster",),
        ("top",),
        ("submit", str(EXAMPLES / "digits.yaml")),
    ],
    ids=lambda command: command[0],
)
def test_every_command_says_in_one_line_that_no_service_answers(home: Path, command: tuple[str, ...]) -> None:
    done = pipetrain_here(*command, "--home", home)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: no service answers at 127.0.0.1:")


def test_a_pause_grows_and_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, pauses = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr("cluster.client.connection.time.sleep", sleep)
    monkeypatch.setattr("cluster.client.connection.time.monotonic", lambda: clock[0])
    assert all(backoff(15.0))
    assert sum(pauses) == pytest.approx(15.0)
    assert max(pauses) <= 2.0
    assert pauses[0] <= 0.1
    assert not list(backoff(0.0))


# light to load -----------------------------------------------------------------------------------------------------


def test_service_commands_load_nothing_heavy_before_they_run() -> None:
    script = """
import sys
import threading
from cluster.cli import cli
context = cli.make_context("pipetrain", [], resilient_parsing=True)
for name in sys.argv[1:]:
    cli.get_command(context, name)
print(*sorted({module.split(".")[0] for module in sys.modules}))
"""
    known = cli.list_commands(cli.make_context("pipetrain", [], resilient_parsing=True))
    names = known[known.index("submit") :]
    heavy = {"ray", "numpy", "scipy", "sklearn", "grpc", "google", "pydantic", "rich", "yaml"}
    done = subprocess.run([sys.executable, "-c", script, *names], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())


def test_the_tab_key_names_commands_without_loading_them_and_is_silent_without_a_service() -> None:
    def complete(words: str, number: int) -> str:
        variables = {"COMP_WORDS": words, "COMP_CWORD": str(number), "_PIPETRAIN_COMPLETE": "bash_complete"}
        pipetrain_script = Path(sys.executable).with_name("pipetrain")
        done = subprocess.run(
            [pipetrain_script], env={**os.environ, **variables}, capture_output=True, text=True, timeout=100, check=True
        )
        assert done.stderr == ""
        return done.stdout

    assert complete("pipetrain st", 1).split() == ["plain,status", "plain,stop"]
    assert complete("pipetrain status ", 2).strip() == ""
    assert complete("pipetrain submit exa", 2) == "file,exa\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str) -> None:
    done = pipetrain_here("completion", shell)
    assert done.returncode == 0
    assert "_PIPETRAIN_COMPLETE" in done.stdout


def test_every_command_is_in_the_help_also_after_list_was_loaded() -> None:
    """Importing the module `cluster.cli.list` once hid the builtin `list` in its package."""
    context = cli.make_context("pipetrain", [], resilient_parsing=True)
    assert cli.get_command(context, "list") is not None
    assert "fetch" in cli.get_help(context)
    assert {"submit", "wait", "top", "completion"} <= set(cli.list_commands(context))


# a job -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def job_of(home: Path, held: None) -> Iterator[Callable[..., Job]]:
    connection = Connection(find_service)
    yield lambda **values: Job(connection, pb.Job(id="k7x2", name="digits", submitted_at=10.0, **values))
    connection.close()


def test_a_job_as_a_dict_has_the_same_keys_in_every_state(job_of: Callable[..., Job]) -> None:
    fresh = job_of(state=pb.QUEUED, reason="position 1", queue_position=1, queue_length=3)
    done = job_of(
        state=pb.SUCCEEDED, step=9, steps_total=9, loss=0.5, started_at=11.0, ended_at=12.0, exit_code=0, attempt=1
    )
    assert list(fresh.as_dict()) == list(done.as_dict())
    assert json.loads(json.dumps(fresh.as_dict())) == fresh.as_dict()
    missing = {"steps_total", "loss", "validation_loss", "validation_accuracy", "started_at", "ended_at", "exit_code"}
    missing |= {"validation_perplexity", "validation_bits_per_byte"}
    assert {key for key, value in fresh.as_dict().items() if value is None} == missing
    assert done.as_dict()["ended_at"] == "1970-01-01T00:00:12.000Z"
    assert (fresh.done, done.done) == (False, True)
    assert done.started_at is not None
    assert done.started_at.utcoffset() is not None
    assert repr(done) == "<Job k7x2 digits: SUCCEEDED at step 9 of 9, loss 0.5>"


def test_a_notebook_shows_names_and_reasons_as_text(job_of: Callable[..., Job]) -> None:
    job = job_of(state=pb.FAILED, reason="<script>alert(1)</script> & <b>")
    html = job._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &lt;b&gt;" in html


def test_an_end_that_is_no_success_is_raised_when_asked_for(job_of: Callable[..., Job]) -> None:
    running, done = job_of(state=pb.RUNNING), job_of(state=pb.SUCCEEDED, exit_code=0)
    assert running.raise_for_state() is running
    assert done.raise_for_state() is done
    with pytest.raises(JobFailed, match="worker 2 died") as lost:
        job_of(state=pb.FAILED, exit_code=1, reason="worker 2 died").raise_for_state()
    assert lost.value.exit_code == 1
    with pytest.raises(StageFailed) as failed:
        job_of(state=pb.FAILED, exit_code=2, reason="no file", traceback="Traceback (most …").raise_for_state()
    assert (failed.value.exit_code, failed.value.traceback) == (2, "Traceback (most …")
    with pytest.raises(JobFailed) as drawn:
        job_of(state=pb.FAILED, exit_code=1, reason="worker 1 hangs", traceback="worker 0 ▏").raise_for_state()
    assert (type(drawn.value), drawn.value.traceback) == (JobFailed, "worker 0 ▏"), "a drawing is no traceback"
    with pytest.raises(JobFailed, match="job k7x2 was stopped: in the queue") as stopped:
        job_of(state=pb.STOPPED, exit_code=130, reason="in the queue").raise_for_state()
    assert stopped.value.exit_code == 130


@pytest.mark.usefixtures("held")
def test_mistakes_are_found_before_anything_is_sent(home: Path, tmp_path: Path) -> None:
    with Client() as client:
        for job in (EXAMPLES / "digits.yaml", digits_job(), digits_job().document()):
            with pytest.raises(InvalidJob) as caught:
                client.submit(job, overrides=["seed=-1", "training.epohcs=3"])
            assert len(caught.value.problems) == 2
        with pytest.raises(InvalidJob, match="name: got 'no/name'"):
            client.submit(digits_job(), name="no/name")
        with pytest.raises(InvalidJob, match=r"nowhere\.yaml: no such file"):
            client.submit(tmp_path / "nowhere.yaml")
        with pytest.raises(UserMistake, match="must be a state: QUEUED"):
            client.list("DONE")
        with pytest.raises(UserMistake, match="limit: got -3000000000"):
            client.list(limit=-3_000_000_000)


def test_only_files_that_are_here_are_uploaded(tmp_path: Path) -> None:
    document = digits_job().document()
    (tmp_path / "rows.csv").write_text("a,y\n1,2\n")
    (tmp_path / "plan.csv").write_text("0F0\n")
    document["data"] |= {"source": str(tmp_path / "rows.csv"), "validation": str(tmp_path / "missing.npz")}
    document["pipeline"]["schedule"] = str(tmp_path / "plan.csv")
    from coordinator.job.spec import parse_job

    assert local_files(parse_job(document)) == [str(tmp_path / "rows.csv"), str(tmp_path / "plan.csv")]
    assert local_files(digits_job()) == []
    document["data"] |= {"source": "https://example.org/rows.csv", "validation": str(tmp_path / "rows.csv")}
    assert local_files(parse_job(document)) == [str(tmp_path / "rows.csv"), str(tmp_path / "plan.csv")]


def test_a_token_of_nobody_is_not_sent() -> None:
    address = ServiceAddress(target="h:1", source="the argument", token=None, token_source="token", home=Path("/h"))
    nobody, somebody = Connection(lambda: address), Connection(lambda: replace(address, token="t"))
    assert nobody.metadata == ()
    assert somebody.metadata == (("authorization", "Bearer t"),)
    nobody.close()
    somebody.close()


@pytest.mark.parametrize("own", [True, False], ids=["both files of the home", "another service's address"])
def test_a_token_that_was_replaced_under_the_service_is_told_with_what_helps(tmp_path: Path, own: bool) -> None:
    source = str(tmp_path / "service.json") if own else "PIPETRAIN_ADDRESS"
    token = {"token": "t", "token_source": str(tmp_path / "token")}
    failure = SimpleNamespace(code=lambda: grpc.StatusCode.UNAUTHENTICATED, details=lambda: "no")
    told = str(error_of(failure, ServiceAddress(target="127.0.0.1:1", source=source, home=tmp_path, **token)))
    assert ("was replaced after the service's start" in told) == own
    assert (f"`pipetrain down --home {tmp_path}` and `pipetrain up --home {tmp_path}`" in told) == own


def test_a_job_that_no_service_takes_for_its_size_is_not_sent() -> None:
    with Client("127.0.0.1:1", token="x" * 40) as client:
        request = pb.SubmitRequest(document="x" * 2**21)
        with pytest.raises(UserMistake, match=r"^the job has 2,097,157 bytes .* a service takes at most 2,097,152$"):
            client._connection.call("Submit", request)
