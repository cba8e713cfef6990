"""Control characters in a job's output and in its name do not reach the terminal: they are escaped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Self, cast

import click
import pytest
from click.testing import CliRunner

from cluster.cli import cli
from cluster.cli.progress import Header, RunDisplay
from cluster.client import Job, JobEvent
from cluster.client.connection import Connection
from cluster.wire import pipetrain_pb2 as pb

HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31m\rover\x08\x7f\u202eturned\tüa"


class _HostileJob(Job):
    def __init__(self) -> None:
        message = pb.Job(
            id="k7x2abcd",
            name=HOSTILE,
            state=pb.FAILED,
            reason=HOSTILE,
            traceback=f"File\n  {HOSTILE}",
            document=json.dumps({"name": HOSTILE}),
            files={HOSTILE: "0" * 64},
        )
        super().__init__(cast(Connection, None), message)

    def events(self) -> list[JobEvent]:
        plan = {"schedule": HOSTILE, HOSTILE: HOSTILE, "workers": 1, "stages": 1, "steps_total": 9}
        return [JobEvent(1, datetime.now(UTC), kind, 1, HOSTILE, plan) for kind in ("starting", HOSTILE)]

    def stats(self) -> None:
        return None

    def logs(self, **_: Any) -> Iterator[tuple[int, str]]:
        yield -1, HOSTILE
        yield 0, HOSTILE


class _Client:
    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def get(self, _: str) -> Job:
        return _HostileJob()

    def list(self, *_: Any, **__: Any) -> list[Job]:
        return [_HostileJob()]

    def stats(self, *_: str) -> dict[str, Any]:
        return {}


def steering(text: str) -> list[str]:
    """Return the control characters and direction marks of the text, except line ends and tabs."""
    return sorted(
        {c for c in text if c not in "\n\t" and (c < " " or "\x7f" <= c <= "\x9f" or "\u202a" <= c <= "\u202e")}
    )


@pytest.mark.parametrize(
    "command",
    ["logs", "logs --worker 0", "describe", "describe --json", "status", "status --json", "list", "list -o wide",
     "list -o json"],
)  # fmt: skip
@pytest.mark.parametrize("colours", [True, False], ids=["terminal", "file"])
def test_what_a_job_wrote_does_not_steer_the_terminal(
    monkeypatch: pytest.MonkeyPatch, command: str, colours: bool
) -> None:
    """Tests both with and without a terminal, because click removes some sequences if there is none."""
    monkeypatch.setattr("cluster.client.Client", _Client)
    name, *options = command.split()
    words = [name, *([] if name == "list" else ["k7x2"]), *options]
    done = CliRunner().invoke(cli, words, color=colours, catch_exceptions=False)
    assert done.exit_code == 0
    assert steering(done.output) == []
    assert "turned" in done.output


def test_yaml_has_no_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.client.Client", _Client)
    done = CliRunner().invoke(cli, ["list", "-o", "yaml"], color=True, catch_exceptions=False)
    assert steering(done.output) == ["\u202e"], "YAML keeps a letter, so that it can be read again"


def test_logs_escape_control_characters_and_keep_tabs_and_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.client.Client", _Client)
    done = CliRunner().invoke(cli, ["logs", "k7x2"], color=True)
    shown = r"\x1b]0;title\x07\x1b[2J\x9b31m\rover\x08\x7f\u202eturned" + "\tüa\n"
    assert done.output == f"runner   | {shown}worker 0 | {shown}"


def test_what_a_tracker_s_server_answered_does_not_steer_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(click, "echo", lambda text, **_: told.append(text))
    RunDisplay(Header("title")).note(HOSTILE)
    assert steering("".join(told)) == []
    assert "turned" in told[0]


def test_names_of_uploaded_files_do_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from cluster.cli.uploads import upload_display

    stream: Any = SimpleNamespace(isatty=lambda: False)
    with upload_display(stream) as tell:
        tell(cast(Any, SimpleNamespace(path=HOSTILE, complete=True, total=1, before=0, done=1)))
    assert steering(capsys.readouterr().err) == []
