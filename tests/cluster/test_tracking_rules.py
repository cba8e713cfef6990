"""Rules for a job's trackers: they act as the service's user, although the job names folder and server."""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.data.rules import SourceRules
from cluster.run.training import Run, Where
from cluster.trackers import TrackedRun, Trackers, require_tracking
from cluster.trackers import rules as module
from cluster.trackers.rules import MayNotReach, only_public
from coordinator.job.spec import JobSpec, parse_job
from stages.errors import InvalidJob, UserMistake
from tests.coordinator.job_documents import SMALLEST

HERE = SourceRules().for_job(remote=False)
ELSEWHERE = SourceRules().for_job(remote=True)
NOT_PUBLIC = "jobs from another host may not reach addresses of this machine and its links"


def tracked(**tracking: Any) -> JobSpec:
    return parse_job({**SMALLEST, "tracking": tracking})


def refusal(rules: SourceRules, *, links: bool = False, **tracking: Any) -> str:
    """Return the error's text; "" if the rules allow it."""
    try:
        require_tracking(tracked(**tracking), rules, links=links)
    except UserMistake as error:
        return "\n".join(error.problems)
    return ""


# names ---------------------------------------------------------------------------------------------------------------

SERVERS = ["http://mlflow.example:5000", "https://10.0.0.7", "http://[2001:db8::1]:5000", "http://localhost:5000"]
OWN = ["http://127.0.0.1:5000", "http://user:secret@127.0.0.1", "https://[::1]", "http://[::ffff:127.0.0.1]:1",
       "http://169.254.169.254/latest", "http://0.0.0.0"]  # fmt: skip
DATABASES = ["sqlite:////data/mlflow.db", "postgresql://db/mlflow", "mysql+pymysql://127.0.0.1/x", "databricks"]


@pytest.mark.parametrize("uri", [*SERVERS, *OWN, *DATABASES])
def test_a_job_of_this_host_names_what_its_user_could(uri: str) -> None:
    assert refusal(HERE, mlflow=uri, tensorboard="/anywhere") == ""


@pytest.mark.parametrize("uri", SERVERS)
def test_a_job_from_elsewhere_names_servers_at_public_addresses(uri: str) -> None:
    assert refusal(ELSEWHERE, mlflow=uri) == "", "the address of a name is checked when a connection is made"


@pytest.mark.parametrize("uri", OWN)
def test_a_job_from_elsewhere_names_no_address_of_this_machine(uri: str) -> None:
    told = refusal(ELSEWHERE, mlflow=uri)
    assert told.startswith("tracking.mlflow: got ")
    assert told.endswith(NOT_PUBLIC)
    assert "secret" not in told


@pytest.mark.parametrize("uri", DATABASES)
def test_a_job_from_elsewhere_names_no_database(uri: str) -> None:
    told = refusal(ELSEWHERE, mlflow=uri)
    if uri.startswith("sqlite"):
        assert "/data/mlflow.db, trackers of a job from another host write nothing else here" in told
    else:
        assert "names a server by http:// or https://" in told


def test_a_job_from_elsewhere_has_tensorboard_in_its_run_directory_alone() -> None:
    assert refusal(ELSEWHERE, tensorboard=True) == ""
    assert refusal(ELSEWHERE, tensorboard="/home/somebody/.ssh") == (
        "tracking.tensorboard: got /home/somebody/.ssh, trackers of a job from another host write nothing else here "
        "(`pipetrain up --tracking-root` allows folders); true writes into the run directory"
    )


def test_every_entry_is_told_at_once() -> None:
    assert len(refusal(ELSEWHERE, tensorboard="/x", mlflow="http://127.0.0.1").splitlines()) == 2


@pytest.mark.parametrize("uri", ["file:///x", "FILE:///x", "File://x", "/x", "./x"])
def test_folders_of_mlflow_are_refused_however_they_are_written(uri: str) -> None:
    with pytest.raises(InvalidJob, match="MLflow no longer keeps runs in folders"):
        tracked(mlflow=uri)


@pytest.mark.parametrize("remote", [False, True])
def test_folders_that_the_operator_allows(remote: bool, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "out").symlink_to(tmp_path)
    (tmp_path / "name").symlink_to(tmp_path / "logs")
    rules = SourceRules(tracking_roots=(str(tmp_path / "logs"),)).for_job(remote=remote)
    rules = SourceRules.from_dict(json.loads(json.dumps(rules.as_dict())))  # as they are sent to the Ray agent
    good, bad = f"{tmp_path}/logs/a", [f"{tmp_path}/logs-b", f"{tmp_path}/logs/../b", "/x", f"{tmp_path}/name/a"]
    for links in (False, True):
        assert refusal(rules, links=links, tensorboard=good) == ""
        assert refusal(rules, links=links, mlflow=f"sqlite:///{good}.db") == ""
        for folder in bad:
            told = f"trackers write only below {tmp_path}/logs here (`pipetrain up --tracking-root`)"
            assert told in refusal(rules, links=links, tensorboard=folder)
            assert told in refusal(rules, links=links, mlflow=f"sqlite:///{folder}/x.db")
    assert refusal(rules, links=False, tensorboard=f"{tmp_path}/logs/out/a") == ""
    assert "trackers write only below" in refusal(rules, links=True, tensorboard=f"{tmp_path}/logs/out/a")


@pytest.mark.parametrize("uri", ["sqlite:///relative.db", "sqlite:////d/x.db?uri=true", "SQLITE:////d/x", "sqlite://x"])
def test_a_database_file_whose_place_is_not_clear_is_refused_below_folders(uri: str) -> None:
    assert "must be sqlite:/// with an absolute path" in refusal(SourceRules(tracking_roots=("/d",)), mlflow=uri)


def test_a_run_follows_links_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "out").symlink_to(tmp_path)
    rules = SourceRules(tracking_roots=(str(tmp_path / "logs"),))
    with pytest.raises(UserMistake, match="trackers write only below"):
        Run.prepare(tracked(tensorboard=f"{tmp_path}/logs/out/a"), Where(local=True, rules=rules))


# addresses -----------------------------------------------------------------------------------------------------------


class _Answers(http.server.BaseHTTPRequestHandler):
    asked: list[str]
    to = ""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(307 if self.to else 404)
        if self.to:
            self.send_header("Location", self.to)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET


@pytest.fixture
def server() -> Iterator[Any]:
    """A server on loopback: `asked` are the requested paths, `to` is where it redirects."""
    handler = type("Handler", (_Answers,), {"asked": [], "to": ""})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        handler.port = running.server_port  # type: ignore[attr-defined]
        yield handler
        running.shutdown()
        thread.join()


def test_one_thread_is_watched_and_no_other(server: Any) -> None:
    def connect(host: str = "localhost") -> None:
        socket.create_connection((host, server.port), timeout=5).close()

    with pytest.raises(MayNotReach, match=r"^it leads to (127\.0\.0\.1|::1); "), only_public():
        connect()
    with only_public():
        other = threading.Thread(target=connect)
        other.start()
        other.join()
        with only_public(False):
            pass
        with pytest.raises(MayNotReach), only_public():
            connect("127.0.0.1")
    connect()


@pytest.fixture
def mlflow() -> None:
    pytest.importorskip("mlflow", reason="is not installed: pip install 'pipetrain[mlflow]'")


def _run(uri: str, folder: Path, *, public_only: bool) -> list[str]:
    told: list[str] = []
    Trackers(tracked(mlflow=uri), folder, warn=told.append, public_only=public_only).close("finished")
    return told


@pytest.mark.usefixtures("mlflow")
def test_mlflow_reaches_no_address_of_this_machine_for_a_job_from_elsewhere(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (told,) = _run(f"http://localhost:{server.port}", tmp_path, public_only=True)
    assert "dropped: MayNotReach: it leads to " in told
    assert NOT_PUBLIC in told
    assert server.asked == []
    _run(f"http://localhost:{server.port}", tmp_path, public_only=False)
    assert server.asked != []


@pytest.mark.usefixtures("mlflow")
def test_mlflow_follows_no_redirect_to_this_machine(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's own address counts as public here, the one to which it redirects does not."""
    monkeypatch.setattr(module, "is_public", lambda address: address == "127.0.0.1")
    server.to = f"http://127.0.0.2:{server.port}/secret"
    (told,) = _run(f"http://127.0.0.1:{server.port}", tmp_path, public_only=True)
    assert "it leads to 127.0.0.2; " in told
    assert server.asked != []
    assert "/secret" not in server.asked


@pytest.mark.usefixtures("mlflow")
def test_a_run_that_is_closed_later_is_closed_by_the_same_rule(server: Any, tmp_path: Path) -> None:
    """A process of the service closes it, and reads from the run directory where the run is open."""
    mark = {"uri": f"http://localhost:{server.port}", "run": "r", "cwd": str(tmp_path), "public_only": True}
    (tmp_path / ".mlflow-run").write_text(json.dumps(mark))
    command = [sys.executable, "-m", "cluster.trackers.closing", str(tmp_path), "failed"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert "MayNotReach: it leads to" in done.stderr
    assert server.asked == []


@pytest.mark.usefixtures("mlflow")
def test_the_mark_of_an_open_run_says_whose_rule_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cluster.trackers.mlflow import MLflow
    from coordinator.run_files import MLFLOW_OPEN

    facts = TrackedRun(name="n", run="r", attempt=1, document={}, folder=tmp_path)
    MLflow(f"sqlite:///{tmp_path}/x.db", public_only=True).start(facts)
    assert json.loads((tmp_path / MLFLOW_OPEN).read_text())["public_only"] is True
