"""The figures of checkpoints and recoveries, from lines of events as runs write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cluster.service.job_stats import JobStats
from cluster.service.metrics_jobs import label_of
from cluster.service.run_feed import RunFeed
from cluster.service.survival import CAUSES, LostWorker, Survival
from coordinator.train.recovery import Cause

DEAD = "worker 1 (stage 1; process 7 on a) died"


def at(second: float, event: str, **details: Any) -> dict[str, Any]:
    return {"time": f"2026-01-02T03:04:{second:06.3f}+00:00", "event": event, "attempt": 1, **details}


def saved(second: float, step: int, **details: Any) -> dict[str, Any]:
    figures = {"bytes": 1000 + step, "seconds": 0.9, "write_seconds": 0.25, "stall_seconds": 0.125}
    return at(second, "checkpoint", step=step, **figures, **details)


def lost(second: float, step: int, **details: Any) -> dict[str, Any]:
    known = {"worker": 1, "loss": "process lost", "cause": DEAD, "found_s": 0.5, "wait_s": 0.0}
    return at(second, "worker lost", step=step, **{**known, **details})


def recovered(second: float, begin: int, again: int) -> dict[str, Any]:
    figures = {"from_step": begin, "steps_lost": again, "replaced_s": 2.0, "first_step_s": 2.5}
    return at(second, "recovered", workers=[], **figures)


def of(*events: dict[str, Any]) -> Survival:
    found = Survival()
    for event in events:
        found.take(event)
    return found


BEGUN = at(0, "started", workers=[])


def test_a_checkpoint_is_the_newest_one_with_its_size_times_and_interval() -> None:
    found = of(BEGUN, saved(10, 100), saved(14.5, 200), at(15, "checkpoint not saved", step=300, cause="disk"))
    assert found.newest is not None
    assert (found.newest.step, found.newest.n_bytes) == (200, 1200)
    assert (found.newest.seconds, found.newest.stall_seconds) == (0.25, 0.125)
    assert found.interval_s == 4.5
    assert found.results == {"written": 2, "failed": 1}
    assert of(BEGUN, saved(10, 100)).interval_s == 10, "from the start of training"


def test_a_recovery_has_its_whole_story() -> None:
    found = of(
        BEGUN, saved(10, 100), lost(11, 130), recovered(13, 100, 30), at(14, "caught up", step=130, identical=True)
    )
    (story,) = found.losses
    assert story == LostWorker(
        attempt=1,
        time=story.time,
        worker=1,
        step=130,
        loss="process lost",
        cause=DEAD,
        found_s=0.5,
        replaced_s=2.0,
        first_step_s=2.5,
        from_step=100,
        steps_lost=30,
        identical=True,
    )
    assert (found.recoveries, found.recovery_seconds, found.steps_again) == (1, 2.5, 30)
    assert found.last_recovery_s == 2.5
    assert found.lost == {"process lost": 1}


def test_a_loss_during_a_recovery_is_a_loss_and_no_recovery() -> None:
    found = of(BEGUN, lost(1, 5), lost(2, 5, worker=0, loss="out of memory", found_s=None), recovered(4, 0, 5))
    assert found.lost == {"process lost": 1, "out of memory": 1}
    assert found.recoveries == 1
    assert [(story.replaced_s, story.identical) for story in found.losses] == [(None, None), (2.0, None)]


def test_a_damaged_checkpoint_is_not_the_newest_any_more() -> None:
    found = of(BEGUN, saved(1, 100), saved(2, 200), lost(3, 210), at(4, "checkpoint damaged", detail="x: …"))
    assert found.newest is not None
    found.take(recovered(5, 100, 110))
    assert found.newest.step == 100
    assert found.results == {"written": 2, "damaged": 1}


def test_steps_that_an_attempt_makes_again_are_counted_and_its_checkpoints_are_the_job_s() -> None:
    found = of(BEGUN, saved(1, 100), saved(2, 200), at(9, "resumed", step=100, steps_lost=120, attempt=2))
    assert (found.newest and found.newest.step, found.steps_again) == (100, 120)
    found.take(at(12, "started", workers=[], attempt=2))
    found.take(saved(15, 300, attempt=2))
    assert (found.newest and found.newest.step, found.interval_s) == (300, 3)


def test_every_cause_of_a_loss_is_a_label_and_an_unknown_one_is_counted() -> None:
    assert set(CAUSES) == {str(cause) for cause in Cause}
    found = of(*(lost(1, 5, loss=loss) for loss in (*CAUSES, "eaten by a cat")))
    assert found.lost == {**dict.fromkeys(CAUSES, 1), "other": 1}
    assert all(label_of(cause).replace("_", "").isalpha() for cause in CAUSES)


def test_a_feed_reads_them_once_and_of_all_attempts_and_passes_damage_over(tmp_path: Path) -> None:
    """A service that is started again reads them again from the beginning, so its figures are those of before."""
    events = tmp_path / "events.jsonl"
    lines = [json.dumps(event) for event in (BEGUN, saved(1, 100), lost(2, 110), recovered(5, 100, 10))]
    events.write_text("\n".join([*lines[:2], "{no json", json.dumps(at(1, "checkpoint", step="x")), *lines[2:]]) + "\n")
    feeds = [RunFeed(tmp_path, 2, events_read=0, stats=JobStats(job="a", name="a", attempt=2)) for _ in range(2)]
    for feed in feeds:
        assert feed.look_for_rows()
        assert not feed.look_for_rows()
        assert feed._stats is not None
        found = feed._stats.survival
        assert (found.results["written"], found.recoveries, found.steps_again) == (1, 1, 10)
    with events.open("a") as file:
        file.write(json.dumps(saved(7, 200)))  # its end is not written yet
        file.flush()
        assert not feeds[0].look_for_rows()
        file.write("\n")
    assert feeds[0].look_for_rows()
