"""The service keeps where a job came from, and passes it to processes that read its data. A reading runner can stop."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.data.rules import SourceRules
from cluster.run.job_runner import Assignment, JobRunner
from cluster.run.training import Run, Where
from cluster.service import store as changes
from cluster.service.api import Api
from cluster.service.changes import submitted
from cluster.service.home import Home
from cluster.service.launching import prepare_attempt
from cluster.service.records import JobDocument, JobRecord
from cluster.service.store import Store
from coordinator.job.resuming import AUTO_REFUSED
from coordinator.job.spec import parse_job
from coordinator.plan.choosing import chosen
from coordinator.queue.job_states import Queued
from coordinator.texts import counted
from stages.errors import InvalidData, InvalidJob, StoppedEarly, UserMistake
from tests.coordinator.job_documents import SMALLEST, changed
from tests.records import job_record
from tests.service_units.scripted import scripted


@pytest.mark.parametrize("remote", [False, True])
def test_the_origin_of_a_job_is_in_the_store_and_in_what_its_runner_is_told(remote: bool, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.make()
    document = JobDocument(document=json.dumps(parse_job(SMALLEST).document()), files={})
    rules = SourceRules(roots=("/data",), protocols=("https", "file"))

    async def write() -> JobRecord:
        found = Store(home.store)
        try:
            job = job_record("j1", remote=remote)
            await found.write(changes.insert(job, document, submitted(job)))
        finally:
            found.close()
        again = Store(home.store)  # as a service after a restart
        try:
            (stored,) = again.unfinished()
            made = prepare_attempt(home, again, stored, 1, 1, rules)
        finally:
            again.close()
        sent = json.loads(json.dumps(made.rules))  # as it is sent to the Ray agent
        assert SourceRules.from_dict(sent) == SourceRules(
            roots=("/data",),
            protocols=("https", "file"),
            public_only=remote,
            tracking_roots=() if remote else None,
        )
        return stored

    assert asyncio.run(write()).remote is remote


def test_a_job_from_another_host_that_would_write_or_reach_what_it_may_not_is_not_taken_in(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'pipetrain[tensorboard]'")
    spec = parse_job({**SMALLEST, "tracking": {"tensorboard": "/home/somebody"}})
    keeper: Any = SimpleNamespace(own=False)
    uploads: Any = None
    outside: Any = None

    async def scenario() -> None:
        async with scripted(tmp_path / "home") as service:
            api = Api(service.jobs, keeper, uploads, outside)
            with pytest.raises(
                UserMistake, match=r"^tracking\.tensorboard: got /home/somebody, trackers of a job from"
            ):
                await api.take_in(spec, remote=True)
            service.jobs.rules = SourceRules(tracking_roots=("/home",))
            for remote in (False, True):
                assert (await api.take_in(spec, remote=remote))[0].remote is remote

    asyncio.run(scenario())


def test_a_run_reads_data_and_schedule_by_its_rules(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("0F0,0B0\n")
    where = Where(local=True, rules=SourceRules(roots=("/nowhere",)))
    for document in (
        changed("data.source", str(tmp_path / "x.csv")),
        changed("pipeline", {"schedule": str(tmp_path / "x.csv")}),
    ):
        with pytest.raises(InvalidData, match=r"x\.csv: local files are read only below /nowhere by this service"):
            Run.prepare(parse_job(document), where)


def test_a_runner_that_waits_for_its_data_ends_when_it_is_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data's file system may hang, and then only a kill would end the runner."""
    spec, reading, never = parse_job(SMALLEST), threading.Event(), threading.Event()
    runner = JobRunner(
        Assignment(job="j1", attempt=1, folder=str(tmp_path), document=spec.document(), files={}, memory_per_cpu=1)
    )

    def prepare(*_: Any) -> Run:
        def hang() -> Run:
            reading.set()
            never.wait()
            raise AssertionError

        wrapped: Callable[[Callable[[], Run]], Run] = runner._unless_stopped
        return wrapped(hang)

    monkeypatch.setattr(runner, "_prepare", prepare)
    attempt = threading.Thread(target=runner._run_attempt)
    attempt.start()
    assert reading.wait(30)
    runner.stop()
    attempt.join(30)
    never.set()
    assert not attempt.is_alive()
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [(event["event"], event.get("saved")) for event in events] == [("preparing", None), ("stopped", False)]


def test_a_stop_that_came_before_ends_it_too(tmp_path: Path) -> None:
    spec = parse_job(SMALLEST)
    runner = JobRunner(
        Assignment(job="j1", attempt=1, folder=str(tmp_path), document=spec.document(), files={}, memory_per_cpu=1)
    )
    runner.stop()
    with pytest.raises(StoppedEarly):
        runner._unless_stopped(lambda: pytest.fail("it began"))


def test_the_grace_of_a_stop_reaches_the_run_also_if_it_came_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float | None] = []
    monkeypatch.setattr(Run, "stop", lambda _, within_s=None: given.append(within_s))
    document = parse_job(SMALLEST).document()
    runner = JobRunner(
        Assignment(job="j1", attempt=1, folder=str(tmp_path), document=document, files={}, memory_per_cpu=1)
    )
    run: Any = object.__new__(Run)
    run.resume, run.rows, run.result = None, lambda run_dir, on_start: iter(()), None
    monkeypatch.setattr(runner, "_prepare", lambda spec, run_dir: run)
    runner.stop(20.0)
    runner._run_attempt()
    runner.stop(5.0)
    runner.stop()
    assert given == [20.0, 5.0, None]


def test_a_job_with_pipeline_auto_is_kept_with_the_settings_that_were_chosen_and_says_which(tmp_path: Path) -> None:
    spec = parse_job({**SMALLEST, "pipeline": "auto"})
    settled, (line,) = chosen(spec, spec.training.batch_size, 1)

    class Answering:
        async def ask(self, what: str, name: str, **question: Any) -> dict[str, Any]:
            assert (what, question["document"]["pipeline"]) == ("choose", "auto")
            return {"document": settled.document(), "lines": [line]}

    keeper: Any = SimpleNamespace(own=False)
    uploads: Any = None
    outside: Any = Answering()

    async def scenario() -> None:
        async with scripted(tmp_path / "home") as service:
            record, document = await Api(service.jobs, keeper, uploads, outside).take_in(spec)
            assert parse_job(json.loads(document.document)) == settled
            assert record.stages == settled.pipeline.stages
            assert record.needs.workers == settled.pipeline.n_workers
            assert record.state == Queued(why=line)
            assert (
                submitted(record).text == f"accepted; {line}; needs {counted(record.needs.workers, 'worker')} of 1 CPU"
            )

    asyncio.run(scenario())


def test_a_job_that_goes_on_with_pipeline_auto_is_refused_before_anything_is_chosen(tmp_path: Path) -> None:
    """The refusal was about groups of weight gradients that the user never wrote."""
    keeper: Any = SimpleNamespace(own=False)
    nothing: Any = None

    async def scenario() -> None:
        async with scripted(tmp_path / "home") as service:
            api = Api(service.jobs, keeper, nothing, nothing)
            with pytest.raises(InvalidJob) as caught:
                await api.take_in(parse_job({**SMALLEST, "pipeline": "auto"}), resume="job1")
            assert caught.value.problems == (AUTO_REFUSED,)

    asyncio.run(scenario())
