"""`Jobs` with a scripted Ray and a store whose disk gets full: what is stored, shown and sent, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from cluster.service.jobs import Jobs
from cluster.service.records import JobDocument
from cluster.service.refusals import NoSpace, QueueFull, SubmissionIdTaken
from coordinator.queue.job_states import MOST_ATTEMPTS
from stages.errors import Refused, UnknownJob
from tests.service_units.scripted_ray import DOCUMENT, NODE, Scene, record, scene

BEGUN = ["submitted", "admitted", "preparing", "starting", "started"]


def play(folder: Path, script: Callable[[Scene], Coroutine[Any, Any, None]], **options: int) -> None:
    """Perform a script on a new scene."""

    async def within() -> None:
        async with scene(folder / "home", **options) as made:
            await script(made)

    asyncio.run(within())


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


# making room -------------------------------------------------------------------------------------------------------


def test_a_job_makes_room_for_one_of_a_higher_priority_and_goes_on_after_it(tmp_path: Path) -> None:
    async def script(made: Scene) -> None:
        runner = await made.run("low", cpus=2)
        runner.makes_steps(0, 4)
        await made.submit("other", cpus=2, priority=5)
        await asyncio.sleep(0.1)
        assert ("stop", 1) not in made.commands("low"), "a priority alone displaces nobody"
        await made.submit("high", cpus=2, priority=9, preempt=True)
        await made.until(lambda: ("stop", 1) in made.commands("low"))
        reason = "makes room for job high: finishes the steps in progress and saves"
        assert (made.state("low"), made.jobs.record("low").reason) == ("RUNNING", reason)
        assert made.state("high") == "QUEUED", "the other has not saved yet"

        runner.tells("stopped", step=4, saved=True, checkpoint=4)
        await made.until(lambda: ("launch", 1) in made.commands("high"))
        assert (made.state("low"), made.jobs.record("low").step) == ("QUEUED", 4)
        reason = made.jobs.view(made.jobs.record("low")).reason
        assert reason == "preempted by job high at step 4; position 2: needs 2 CPUs, 0 free; 1 job ahead"
        await made.jobs.runner_gone("low", 1, "it has ended")
        made.runner("high").begins().tells("finished", step=10)
        await made.until(lambda: ("launch", 1) in made.commands("other"))
        made.runner("other").begins().tells("finished", step=10)
        await made.until(lambda: ("launch", 2) in made.commands("low"))
        made.runner("low", 2).begins().makes_steps(4, 10).tells("finished", step=10)
        await made.until_state("low", "SUCCEEDED")
        assert made.told("low") == [*BEGUN, "preempted", "stopped", *BEGUN[1:], "finished"]
        assert "preempted" not in [*made.told("high"), *made.told("other")]

    play(tmp_path, script)


def test_jobs_save_their_state_before_the_service_ends_and_go_on_with_the_next_one(tmp_path: Path) -> None:
    async def script(made: Scene) -> None:
        saves, late, starts = await made.run("saves"), await made.run("late"), "starts"
        await made.submit(starts, cpus=2)
        made.jobs.closing = True
        pausing = asyncio.create_task(made.jobs.pause(within_s=1.0))
        await made.until(lambda: all(("stop", 1) in made.commands(job) for job in ("saves", "late")))
        reason = "the service is being shut down: finishes the steps in progress and saves"
        assert made.jobs.record("late").reason == reason
        saves.makes_steps(0, 5).tells("stopped", step=5, saved=True, checkpoint=5)
        await made.until_state("saves", "RECOVERING")
        assert not pausing.done()
        await pausing
        await made.jobs.cluster_lost("the service was shut down", planned=True)
        reasons = [made.jobs.record(job).reason for job in ("saves", "late")]
        assert reasons == [
            "the service was shut down, stopped at step 5, weights saved; attempt 2 starts when there is room",
            "the service was shut down; attempt 2 starts when there is room",
        ]
        assert late is not None

        made.jobs = Jobs(made.home, made.store, max_queued=9, send=made.sent.append)
        made.jobs.cluster_is([NODE])
        keeping = asyncio.create_task(made.jobs.keep_scheduling())
        await made.until(lambda: all(("launch", 2) in made.commands(job) for job in ("saves", "late")))
        assert made.commands(starts) == []
        keeping.cancel()

    play(tmp_path, script)


def test_who_makes_room_is_remembered_by_the_next_service(tmp_path: Path) -> None:
    async def script(made: Scene) -> None:
        await made.run("low", cpus=2)
        await made.submit("high", cpus=2, priority=9, preempt=True)
        await made.until(lambda: ("stop", 1) in made.commands("low"))
        made.jobs = Jobs(made.home, made.store, max_queued=9, send=made.sent.append)
        made.jobs.cluster_is([NODE])
        made.sent.clear()
        await made.jobs.connected()
        assert made.commands("low") == [("adopt", 1), ("stop", 1)]
        made.runner("low").tells("stopped", step=7, saved=False, checkpoint=5)
        await made.jobs.runner_gone("low", 1, "it has ended")
        reason = made.jobs.view(made.jobs.record("low")).reason
        assert reason.startswith("preempted by job high at step 7; its newest checkpoint is of step 5; waits")

    play(tmp_path, script)


def test_a_launch_that_the_disk_refuses_waits_for_room_and_holds_up_no_other(tmp_path: Path) -> None:
    async def script(made: Scene) -> None:
        full = [OSError(28, "No space left on device")]

        def refuse(command: Any) -> None:
            if command["job"] == "a" and full:
                raise full[0]
            made.sent.append(command)

        made.jobs = Jobs(made.home, made.store, max_queued=9, send=refuse)
        made.jobs.cluster_is([NODE])
        keeping = asyncio.create_task(made.jobs.keep_scheduling())
        await made.submit("a")
        await made.submit("b")
        await made.until(lambda: made.commands("b") == [("launch", 1)])
        assert made.state("a") == "STARTING"
        assert made.jobs.view(made.jobs.record("a")).reason.startswith("no space left on device")
        full.clear()
        await made.until(lambda: made.commands("a") == [("launch", 1)])
        assert made.jobs.view(made.jobs.record("a")).reason == "starting its runner"
        keeping.cancel()

    play(tmp_path, script)


def test_a_launch_that_can_never_be_ends_that_job_and_no_other(tmp_path: Path) -> None:
    async def script(made: Scene) -> None:
        def refuse(command: Any) -> None:
            if command["job"] == "a":
                raise TypeError("a bug")
            made.sent.append(command)

        made.jobs = Jobs(made.home, made.store, max_queued=9, send=refuse)
        made.jobs.cluster_is([NODE])
        keeping = asyncio.create_task(made.jobs.keep_scheduling())
        await made.submit("a")
        await made.submit("b")
        await made.until_state("a", "FAILED")
        assert made.jobs.record("a").reason == "its runner could not be started: TypeError: a bug"
        await made.until(lambda: made.commands("b") == [("launch", 1)])
        keeping.cancel()

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


# losses ------------------------------------------------------------------------------------------------------------


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


# a full disk -------------------------------------------------------------------------------------------------------


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
