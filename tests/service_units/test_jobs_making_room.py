"""`Jobs` that make room for others, and launches for which the disk has no room."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from cluster.service.jobs import Jobs
from tests.service_units.scripted_ray import BEGUN, NODE, Scene, play


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
