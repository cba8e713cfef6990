"""The places that show why a run is slow: after `train`, in `describe` and in `top`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, cast

import pytest
from click.testing import CliRunner
from rich.console import Console

from cluster.cli import cli
from cluster.cli.top import _Frames
from cluster.client import Client, Job, JobFigures, WorkerFigures
from cluster.client.connection import Connection
from cluster.wire import pipetrain_pb2 as pb
from tests.jobs import digits_job, pipetrain_here

WHY = (
    "worker 0 computes 98% of the time, the other waits 70% of it: move a layer away from stage 0, or use "
    "`pipeline.partition: measured`"
)


def figures(*shares: tuple[int, int]) -> JobFigures:
    """Return figures of workers, with a stage each, that computed and waited these percentages of 10 s."""
    workers = tuple(
        WorkerFigures(
            worker=worker,
            host="a",
            pid=1,
            stages=(worker,),
            microseconds={"forward": compute * 10**5, "wait_steady": wait * 10**5},
            bubble_predicted=0.1,
            peak_rss_bytes=None,
            peak_job_bytes=None,
            limit_bytes=None,
        )
        for worker, (compute, wait) in enumerate(shares)
    )
    none: dict[str, Any] = dict.fromkeys(
        ("loss", "accuracy", "validation_loss", "validation_accuracy", "samples_per_second", "bubble")
    )
    return JobFigures(id="k7x2", attempt=1, step=5, bubble_predicted=None, losses=(), workers=workers, **none)


class _Job(Job):
    """A running job with figures."""

    def stats(self) -> JobFigures | None:
        return figures((98, 2), (30, 70))

    def events(self) -> list[Any]:
        return []


class _Client:
    """A client of a service with that job."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def get(self, _: str) -> Job:
        return _Job(
            cast(Connection, None),
            pb.Job(id="k7x2", name="digits", state=pb.RUNNING, document="{}", submitted_at=1.0, steps_total=9),
        )


def test_describe_says_why_a_job_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.client.Client", _Client)
    assert f"\nslow        {WHY}\n" in CliRunner().invoke(cli, ["describe", "k7x2"], catch_exceptions=False).output
    done = CliRunner().invoke(cli, ["describe", "k7x2", "--json"], catch_exceptions=False)
    assert json.loads(done.output)["slow"] == WHY


@pytest.mark.parametrize("room", [None, 30])
def test_top_says_why_a_job_is_slow_of_late(room: int | None) -> None:
    job = _Client().get("k7x2")
    found = {"k7x2": figures((50, 50), (50, 50))}
    screen = Console(width=70, color_system=None)
    frames = _Frames(cast(Client, SimpleNamespace(stats=lambda *ids: found)), screen)
    list(frames._running([job], room))
    found["k7x2"] = figures((50 + 98, 50 + 2), (50 + 30, 50 + 70))
    with screen.capture() as captured:
        screen.print(*frames._running([job], room), sep="\n")
    assert f"slow: {WHY}" in " ".join(captured.get().split())


def test_train_ends_with_why_it_was_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(digits_job().to_yaml())
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    done = pipetrain_here("train", job, "--local", "--run-dir", tmp_path / "a")
    told = "4 workers share one CPU: use no more workers than CPUs, such as --stages 1"
    assert done.stderr.splitlines()[-1] == f"slow: {told}"
    done = pipetrain_here("train", job, "--local", "--run-dir", tmp_path / "b", "--json")
    assert json.loads(done.stdout.splitlines()[-1])["slow"] == told
