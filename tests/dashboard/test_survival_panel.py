"""What the job's page says about checkpoints and recoveries, and where it marks them over the charts."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.dashboard.facts import survival_model
from cluster.dashboard.live import Live
from cluster.dashboard.marks import NO_MARKS, Marks, marks_of
from cluster.dashboard.pages.survival_panel import FACTS, LOSS_COLUMNS, checkpoint_facts, loss_row, summary
from cluster.dashboard.texts import brief, clock
from cluster.service.job_stats import JobStats
from cluster.service.survival import Survival
from tests.service_units.test_survival import BEGUN, DEAD, at, lost, of, recovered, saved

HERE = Path("/home/runs/abc/checkpoints")
CAUGHT_UP = at(14, "caught up", step=130, identical=True)


def test_the_newest_checkpoint_is_told_with_time_size_and_place() -> None:
    found = of(BEGUN, saved(10, 100), saved(14, 1200), at(15, "checkpoint not saved", step=1300, cause="full"))
    newest = found.newest
    assert newest is not None
    assert dict(zip(FACTS, checkpoint_facts(found), strict=True)) == {
        "newest checkpoint": "step 1,200",
        "written": clock(newest.time)[11:],
        "its size": "2.1 KiB",
        "time to write": "250 ms",
        "training stood still": "125 ms",
        "checkpoints": "2 written, 1 failed",
    }


def test_before_the_first_checkpoint_nothing_is_invented() -> None:
    found = of(BEGUN, at(15, "checkpoint not saved", step=1300, cause="full"))
    assert [text for text in checkpoint_facts(found) if text] == ["0 written, 1 failed"]
    assert summary(Survival(), HERE) == ""


def test_a_loss_is_told_as_it_becomes_known() -> None:
    found = of(BEGUN, saved(10, 100), lost(11, 130, cause=f"{DEAD}; meanwhile worker 0 was idle"))

    def told() -> dict[str, str]:
        return dict(zip(LOSS_COLUMNS, loss_row(found.losses[-1]), strict=True))

    assert told()["made again"] == "not yet"
    assert (told()["found after"], told()["replaced after"]) == ("500 ms", "")
    found.take(recovered(13, 100, 30))
    assert told()["made again"] == "30 steps, after step 100"
    found.take(CAUGHT_UP)
    assert told() == {
        "time": clock(found.losses[0].time)[11:],
        "worker": "1",
        "what happened": f"process lost: {DEAD}",
        "found after": "500 ms",
        "replaced after": "2.0 s",
        "new step after": "2.5 s",
        "made again": "30 steps, after step 100: identical",
    }
    assert summary(found, HERE) == (
        f"The files are in {HERE}. The job lost 1 worker and recovered 1 time, in 2.5 s in all; "
        "30 steps were made again."
    )


def test_rows_that_differ_are_told_loudly() -> None:
    found = of(lost(1, 5), recovered(2, 0, 5), at(3, "caught up", step=5, identical=False, difference="step 3: loss"))
    assert loss_row(found.losses[-1])[-1] == "5 steps, after step 0: NOT identical"


def test_the_interface_has_the_same() -> None:
    found = of(BEGUN, saved(10, 100), lost(11, 130), recovered(13, 100, 30), CAUGHT_UP)
    told = survival_model(found).model_dump()
    assert (told["written"], told["failed"], told["lost"], told["recoveries"], told["steps_again"]) == (1, 0, 1, 1, 30)
    assert (told["checkpoints"][0]["step"], told["checkpoints"][0]["bytes"]) == (100, 1100)
    (loss,) = told["losses"]
    assert (loss["worker"], loss["from_step"], loss["steps_lost"], loss["identical"]) == (1, 100, 30, True)
    assert "fault" in survival_model(of(at(1, "fault", id="1", kind="kill", worker=1, step=9))).model_dump_json()


def test_marks_are_at_the_steps_of_checkpoints_losses_and_of_what_is_made_again() -> None:
    found = of(BEGUN, saved(10, 100), lost(11, 130), recovered(13, 100, 30), CAUGHT_UP, saved(15, 200), lost(16, 250))
    marks = marks_of(found)
    assert marks == Marks((100, 200), ((130, "worker 1 lost"), (250, "worker 1 lost")), ((100, 130),))
    assert marks.within(110, 220) == Marks((200,), ((130, "worker 1 lost"),), ((110, 130),))
    assert marks.within(131, 199) == NO_MARKS
    options = marks.options()
    assert [line["xAxis"] for line in options["markLine"]["data"]] == [100, 200, 130, 250]
    assert options["markArea"]["data"] == [[{"xAxis": 100}, {"xAxis": 130}]]


def test_of_many_checkpoints_only_those_that_matter_are_marked() -> None:
    many = Marks(tuple(range(100, 5100, 100)), ((730, "worker 1 lost"),), ((700, 730),))
    assert many.within(1, 6000).checkpoints == (700, 5000)
    assert many.within(650, 1200).checkpoints == (700, 800, 900, 1000, 1100, 1200)


def test_the_marks_of_a_running_job_follow_its_events() -> None:
    stats = JobStats(job="a", name="a", attempt=1)
    live = Live(stats)
    assert live.marks() is live.marks()
    assert live.marks() == NO_MARKS
    stats.survival.take(saved(10, 100))
    assert live.marks().checkpoints == (100,)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.0, "0.0 ms"), (0.0025, "2.5 ms"), (0.25, "250 ms"), (3.25, "3.2 s"), (600, "10 min")]
)
def test_short_times_are_in_milliseconds(seconds: float, said: str) -> None:
    assert brief(seconds) == said


def test_faults_on_request_are_marked_with_what_they_are() -> None:
    fault = at(10.5, "fault", id="1", kind="kill", worker=1, step=131, point="1F0", time_s=10.5, detail="")
    marks = marks_of(of(BEGUN, saved(10, 100), fault, lost(11, 130)))
    assert marks.faults == ((131, "kill of worker 1"),)
    assert marks.within(132, 140).faults == ()
    (mark,) = [line for line in marks.options()["markLine"]["data"] if line.get("name") == "kill of worker 1"]
    assert (mark["xAxis"], mark["label"]["show"]) == (131, True)
