"""`Jobs` with a scripted Ray: from the queue to the end, and stops on the way."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cluster.service.records import JobDocument
from cluster.service.refusals import QueueFull, SubmissionIdTaken
from coordinator.queue.job_states import MOST_ATTEMPTS
from stages.errors import Refused, UnknownJob, UserMistake
from tests.service_units.scripted_ray import BEGUN, DOCUMENT, NODE, Scene, play, record

# a life ------------------------------------------------------------------------------------------------------------


def test_a_job_goes_from_the_queue_to_its_end(tmp_path: Path) -> None:
    async def script(made: Scene) -> None:
        runner = await made.run("a")
        (launch,) = made.sent
        assert (launch["do"], launch["job"], launch["attempt"]) == ("launch", "a", 1)
        assert launch["assignment"]["folder"] == str(made.home.run_directory("a"))
        runner.makes_steps(0, 10).tells("finished", step=10)
        await made.until_state("a", "SUCCEEDED")
        assert made.told("a") == [*BEGUN, "finished"]
        assert made.jobs.record("a").loss == 4.5, "the mean over all rows of the epoch, even without a watcher"
        await made.jobs.runner_gone("a", 1, "its process ended")
        assert made.commands("a") == [("launch", 1), ("forget", 1)]
        assert made.told("a") == [*BEGUN, "finished"], "events after the end change nothing"

    play(tmp_path, script)


@pytest.mark.parametrize(
    ("last", "details", "state", "exit_code"),
    [
        ("finished", {"step": 10}, "SUCCEEDED", 0),
        ("stopped", {"step": 4, "saved": True, "checkpoint": 4}, "STOPPED", 130),
        ("stopped", {"step": 4, "saved": False, "checkpoint": 2}, "STOPPED", 3),
        ("failed", {"cause": "stage 1: no", "kind": "StageFailed", "traceback": "T"}, "FAILED", 1),
        ("failed", {"cause": "no such file", "kind": "InvalidData", "mistake": True}, "FAILED", 2),
    ],
)
def test_how_a_run_ended_is_what_its_runner_wrote_even_if_its_death_is_heard_of_first(
    tmp_path: Path, last: str, details: dict[str, Any], state: str, exit_code: int
) -> None:
    async def script(made: Scene) -> None:
        runner = await made.run("a")
        runner.tells(last, **details)
        await made.jobs.runner_gone("a", 1, "its runner is gone")
        assert made.state("a") == state
        assert made.jobs.record("a").exit_code == exit_code
        assert made.told("a") == [*BEGUN, last]

    play(tmp_path, script)


def test_a_runner_that_is_gone_without_a_word_is_replaced_before_any_waiting_job(tmp_path: Path) -> None:
    async def script(made: Scene) -> None:
        (await made.run("a", cpus=2)).makes_steps(0, 3)
        await made.submit("b", cpus=2, priority=9)
        await made.jobs.runner_gone("a", 1, "killed from outside")
        assert made.jobs.record("a").reason == "killed from outside; attempt 2 starts when there is room"
        await made.until(lambda: ("launch", 2) in made.commands("a"))
        assert made.state("b") == "QUEUED"
        made.runner("a", 2).begins().makes_steps(0, 10).tells("finished", step=10)
        await made.until_state("a", "SUCCEEDED")
        assert made.told("a") == [*BEGUN, "runner lost", *BEGUN[1:], "finished"]

    play(tmp_path, script)


def test_a_runner_that_dies_again_and_again_fails_its_job_and_frees_its_place(tmp_path: Path) -> None:
    async def script(made: Scene) -> None:
        await made.submit("a", cpus=2)
        await made.submit("b", cpus=2)
        for attempt in range(1, MOST_ATTEMPTS + 1):
            await made.until(lambda attempt=attempt: ("launch", attempt) in made.commands("a"))  # type: ignore[misc]
            await made.jobs.runner_gone("a", attempt, "killed from outside")
        reason = "killed from outside, for the 5th time; not started again"
        assert (made.state("a"), made.jobs.record("a").reason) == ("FAILED", reason)
        await made.until_state("b", "STARTING")

    play(tmp_path, script)


def test_a_runner_that_ray_refuses_to_start_is_the_cause(tmp_path: Path) -> None:
    async def script(made: Scene) -> None:
        await made.submit("a")
        await made.until(lambda: ("launch", 1) in made.commands("a"))
        await made.jobs.runner_gone("a", 1, "Ray did not start its runner", again=False)
        assert (made.state("a"), made.jobs.record("a").exit_code) == ("FAILED", 1)

    play(tmp_path, script)


# stopping ----------------------------------------------------------------------------------------------------------


def test_stop_in_the_queue_needs_no_command_and_a_second_one_changes_nothing(tmp_path: Path) -> None:
    async def script(made: Scene) -> None:
        await made.submit("a")
        assert (await made.jobs.stop("a", now=False)).state.name == "STOPPED"
        assert made.told("a") == ["submitted", "stop requested"]
        await made.jobs.stop("a", now=True)
        assert made.told("a") == ["submitted", "stop requested"]
        assert made.sent == []

    play(tmp_path, script, nodes=0)


def test_stop_lets_the_runner_save_and_stop_now_ends_its_process(tmp_path: Path) -> None:
    async def script(made: Scene) -> None:
        runner = await made.run("a")
        await made.jobs.stop("a", now=False)
        assert made.commands("a")[-1] == ("stop", 1)
        assert made.state("a") == "RUNNING"
        for grace, told in ((20.0, 20.0), (30.0, 20.0), (5.0, 5.0), (None, 5.0)):
            await made.jobs.stop("a", now=False, grace=grace)
            assert made.sent[-1] == {"do": "stop", "job": "a", "attempt": 1, "grace": told}, "it only gets shorter"
        for wrong in (-1.0, float("nan"), 1e9):
            with pytest.raises(UserMistake, match=r"grace: .* from 0 to 86,400"):
                await made.jobs.stop("a", now=False, grace=wrong)
        await made.jobs.stop("a", now=True)
        assert made.sent[-1] == {"do": "end", "job": "a", "attempt": 1, "pid": 2**22 + 1}
        await made.jobs.runner_gone("a", 1, "its runner was ended")
        assert made.state("a") == "STOPPED"
        assert not made.jobs.record("a").model_saved
        assert runner is not None

    play(tmp_path, script)


# the queue ---------------------------------------------------------------------------------------------------------


def test_jobs_start_by_priority_and_then_in_turn_as_there_is_room(tmp_path: Path) -> None:
    async def script(made: Scene) -> None:
        for job, priority in (("a", 0), ("b", 0), ("c", 5), ("d", -1)):
            await made.submit(job, cpus=2, priority=priority)
        made.jobs.cluster_is([NODE])
        started: list[str] = []
        for _ in range(4):
            await made.until(lambda: len(made.sent) > 2 * len(started))
            job = made.sent[-1]["job"]
            started.append(job)
            await made.jobs.runner_gone(job, 1, "done with", again=False)  # a launch and a forget each
        assert started == ["c", "a", "b", "d"]

    play(tmp_path, script, nodes=0)


def test_a_submission_id_is_taken_once(tmp_path: Path) -> None:
    async def script(made: Scene) -> None:
        first = await made.jobs.submit(record("a", submission_id="mine"), DOCUMENT)
        again = await made.jobs.submit(record("b", submission_id="mine"), DOCUMENT)
        assert (first.id, again.id, len(made.jobs)) == ("a", "a", 1)
        with pytest.raises(SubmissionIdTaken, match="belongs to job a"):
            await made.jobs.submit(record("c", submission_id="mine"), JobDocument(document="{}", files={}))

    play(tmp_path, script, nodes=0)


def test_a_full_queue_refuses_also_those_that_come_at_the_same_time(tmp_path: Path) -> None:
    async def script(made: Scene) -> None:
        outcomes = await asyncio.gather(*(made.submit(job) for job in "abcdef"), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes].count(QueueFull) == 4
        assert len(made.jobs) == 2

    play(tmp_path, script, nodes=0, max_queued=2)


def test_a_caller_who_hangs_up_does_not_undo_a_submission(tmp_path: Path) -> None:
    async def script(made: Scene) -> None:
        submitting = asyncio.create_task(made.submit("a"))
        await asyncio.sleep(0)
        submitting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submitting
        await made.until(lambda: ("launch", 1) in made.commands("a"))

    play(tmp_path, script)


def test_only_what_has_ended_can_be_deleted_and_then_it_is_gone(tmp_path: Path) -> None:
    async def script(made: Scene) -> None:
        runner = await made.run("a")
        with pytest.raises(Refused, match="a is RUNNING"):
            await made.jobs.delete("a")
        runner.tells("finished", step=10)
        await made.until_state("a", "SUCCEEDED")
        await made.jobs.delete("a")
        with pytest.raises(UnknownJob):
            made.jobs.record("a")
        assert list(made.home.runs.iterdir()) == []

    play(tmp_path, script)
