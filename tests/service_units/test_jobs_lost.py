"""`Jobs` that lose Ray, the service or room on the disk: what is stored, shown and sent, and when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.service.jobs import Jobs
from cluster.service.refusals import NoSpace
from coordinator.queue.job_states import MOST_ATTEMPTS
from stages.errors import UnknownJob
from tests.service_units.scripted_ray import BEGUN, NODE, Scene, play


def test_a_job_whose_ray_is_lost_starts_again_before_all_that_wait(tmp_path: Path) -> None:
    async def script(made: Scene) -> None:
        runner = await made.run("a", cpus=2)
        runner.makes_steps(0, 3)
        await made.submit("b", cpus=2, priority=1000)
        made.jobs.cluster_is(())
        await made.jobs.cluster_lost("Ray was lost")
        assert (made.state("a"), made.state("b")) == ("RECOVERING", "QUEUED")
        made.jobs.cluster_is([NODE])
        await made.until(lambda: ("launch", 2) in made.commands("a"))
        assert made.commands("b") == []
        second = made.runner("a", 2).begins()
        await made.until_state("a", "RUNNING")
        await made.jobs.runner_gone("a", 1, "heard of late")
        assert (made.state("a"), made.commands("a")[-1]) == ("RUNNING", ("forget", 1))
        second.makes_steps(0, 10).tells("finished", step=10)
        await made.until_state("a", "SUCCEEDED")
        assert made.told("a") == [*BEGUN, "cluster lost", *BEGUN[1:], "finished"]
        rows = [
            (made.home.run_directory("a") / name).read_text() for name in ("metrics.attempt-1.jsonl", "metrics.jsonl")
        ]
        assert [text.count("\n") for text in rows] == [3, 10]

    play(tmp_path, script)


@pytest.mark.parametrize("planned", [False, True])
def test_a_job_under_which_ray_dies_again_and_again_is_given_up_unless_it_was_ended_on_purpose(
    tmp_path: Path, planned: bool
) -> None:
    async def script(made: Scene) -> None:
        await made.submit("a")
        for attempt in range(1, MOST_ATTEMPTS + 1):
            await made.until(lambda attempt=attempt: ("launch", attempt) in made.commands("a"))  # type: ignore[misc]
            await made.jobs.cluster_lost("Ray was lost", planned=planned)
        if planned:
            await made.until(lambda: ("launch", MOST_ATTEMPTS + 1) in made.commands("a"))
        else:
            assert made.state("a") == "FAILED"
            assert made.jobs.record("a").reason == f"Ray was lost, for the {MOST_ATTEMPTS}th time; not started again"

    play(tmp_path, script)


def test_a_job_that_had_finished_when_ray_died_has_finished(tmp_path: Path) -> None:
    async def script(made: Scene) -> None:
        runner = await made.run("a")
        runner.makes_steps(0, 10).tells("finished", step=10)
        await made.jobs.cluster_lost("Ray was lost")
        assert made.state("a") == "SUCCEEDED"

    play(tmp_path, script)


def test_a_service_that_was_killed_finds_its_jobs_and_gives_the_commands_again(tmp_path: Path) -> None:
    async def script(made: Scene) -> None:
        await made.run("running")
        await made.submit("starting")
        await made.until(lambda: ("launch", 1) in made.commands("starting"))
        await made.submit("waiting", cpus=2)
        await made.jobs.stop("running", now=False)
        sent: list[Any] = []
        after = Jobs(made.home, made.store, max_queued=9, send=sent.append)  # as the next process reads the store
        assert {job.id for job in after.active()} == {"running", "starting"}
        assert [job.id for job in after.waiting(9)] == ["waiting"]
        await after.connected()
        found = sorted((command["job"], command["do"]) for command in sent)
        assert found == [("running", "adopt"), ("running", "stop"), ("starting", "launch")]

    play(tmp_path, script)


def test_a_runner_that_does_not_answer_is_told_of_and_ended_after_long(tmp_path: Path) -> None:
    async def script(made: Scene) -> None:
        await made.run("a")
        made.jobs.runner_silent("a", 1, 30)
        assert made.jobs.view(made.jobs.record("a")).reason == "its runner has not answered for 30 s"
        made.jobs.runner_silent("a", 2, 1000)  # a previous attempt
        made.jobs.runner_silent("a", 1, 0)
        assert made.jobs.view(made.jobs.record("a")).reason == ""
        assert made.commands("a") == [("launch", 1)]
        made.jobs.runner_silent("a", 1, 1000)
        assert made.commands("a")[-1] == ("end", 1)

    play(tmp_path, script)


def test_what_could_not_be_stored_did_not_happen(tmp_path: Path) -> None:
    async def script(made: Scene) -> None:
        runner = await made.run("a")
        made.store.full = True
        for change in (made.submit("b"), made.jobs.stop("a", now=True)):
            with pytest.raises(NoSpace):
                await change
        with pytest.raises(UnknownJob):
            made.jobs.record("b")
        assert made.commands("a") == [("launch", 1)], "no command is sent before the change is noted"
        made.store.full = False
        await made.submit("b")
        await made.until_state("b", "STARTING")
        runner.tells("finished", step=10)
        await made.until_state("a", "SUCCEEDED")

    play(tmp_path, script)


def test_events_that_came_while_the_disk_was_full_are_taken_in_order_and_once(tmp_path: Path) -> None:
    async def script(made: Scene) -> None:
        await made.submit("a")
        await made.until(lambda: ("launch", 1) in made.commands("a"))
        made.store.full = True
        made.runner("a").begins().makes_steps(0, 10).tells("finished", step=10)
        with pytest.raises(NoSpace):
            await made.jobs.runner_gone("a", 1, "its process ended")
        assert not made.jobs.record("a").state.ended
        made.store.full = False
        await made.until_state("a", "SUCCEEDED")
        assert made.told("a") == [*BEGUN, "finished"]

    play(tmp_path, script)
