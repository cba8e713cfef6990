"""What the commands of the job service make of its answers: a client of their own stands for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import pytest
from click.testing import CliRunner

from cluster.cli import cli


class _Job:
    """A job that has ended with a code, or never ends."""

    reason = ""

    def __init__(self, job_id: str, exit_code: int | None) -> None:
        self.id, self.exit_code, self.name = job_id, exit_code, job_id
        self.done = exit_code is not None
        self.state = {None: "RUNNING", 0: "SUCCEEDED", 130: "STOPPED"}[exit_code]
        self.step, self.steps_total, self.validation_loss, self.validation_accuracy = 1, 2, None, None

    def events(self) -> list[Any]:
        return []

    def watch(self, **_: Any) -> Iterator[Any]:
        raise TimeoutError


class _Client:
    """Knows `jobs`."""

    jobs: dict[str, _Job]

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def get(self, job_id: str) -> _Job:
        return self.jobs[job_id]


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> dict[str, _Job]:
    _Client.jobs = {"r": _Job("r", None), "s": _Job("s", 130), "d": _Job("d", 0)}
    monkeypatch.setattr("cluster.client.Client", _Client)
    return _Client.jobs


@pytest.mark.usefixtures("jobs")
@pytest.mark.parametrize(("ids", "code"), [("r", 124), ("r s", 124), ("s r", 124), ("d s", 130), ("d", 0)])
def test_wait_ends_with_124_whenever_the_timeout_ran_out(ids: str, code: int) -> None:
    done = CliRunner().invoke(cli, ["wait", *ids.split(), "--timeout", "0"], standalone_mode=False)
    assert done.return_value == code, done.output
