"""`pipetrain verify` with threads as workers: every schedule, also those with stages in a V and searched ones."""

from __future__ import annotations

import json

from coordinator.job.schedule_names import SCHEDULES
from tests.jobs import EXAMPLES, pipetrain_here


def test_every_schedule_trains_the_weights_of_one_process() -> None:
    names = ",".join([*SCHEDULES, "auto"])
    found = pipetrain_here(
        "verify", EXAMPLES / "digits.yaml", "--local", "--steps", "2", "--stages", "4", "--schedules", names, "--json"
    )
    assert found.returncode == 0
    rows = json.loads(found.stdout)
    assert all(row["equal"] for row in rows)
    assert [row["schedule"] for row in rows] == [*SCHEDULES, "auto"]


def test_of_all_schedules_those_that_need_more_micro_batches_are_left_out_and_named() -> None:
    found = pipetrain_here(
        "verify", EXAMPLES / "digits.yaml", "--local", "--steps", "1", "--stages", "4",
        "--set", "training.micro_batches=3", "--json",
    )  # fmt: skip
    assert found.returncode == 0
    assert "dualpipev         4 stages: left out, it needs 4 micro-batches\n" in found.stderr
    assert '"dualpipev"' not in found.stdout


def test_a_schedule_that_cannot_be_built_is_one_line() -> None:
    found = pipetrain_here(
        "verify", EXAMPLES / "digits.yaml", "--local", "--schedules", "dualpipev", "--stages", "4",
        "--set", "training.micro_batches=3",
    )  # fmt: skip
    assert (found.returncode, found.stdout, found.stderr) == (
        2, "", "error: training.micro_batches: got 3, must be at least 4 for dualpipev, two for each of 2 workers\n"
    )  # fmt: skip
