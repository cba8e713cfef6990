"""The contest of a job's settings: who is measured, who goes on, who wins, and why. No worker runs here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from coordinator.plan.blueprint import make_blueprint
from coordinator.plan.candidates import Candidate
from coordinator.plan.contest import FIRST, Budget, Contest, Trial, distance, near, spread, winner
from coordinator.plan.settings import PipelineSettings, trial_job
from coordinator.plan.why_fastest import why_fastest
from coordinator.timing.accounts import Bubble
from coordinator.timing.step_time import CAUSES, PredictedStep
from stages.errors import JobFailed
from tests.jobs import digits_job

JOB = digits_job()
OWN = PipelineSettings(stages=2, workers=2, schedule="1f1b", micro_batches=8)


def settings(**changes: object) -> PipelineSettings:
    return replace(OWN, **changes)  # type: ignore[arg-type]


def candidate(one: PipelineSettings, seconds: float, **causes: float) -> Candidate:
    by_worker = {**dict.fromkeys(CAUSES, 0.0), **causes}
    step = PredictedStep(seconds, (), Bubble(0.1, (0.1,)), lambda: (by_worker,))
    return Candidate(settings=one, blueprint=make_blueprint(trial_job(JOB, one), 1030), predicted=step)


def many() -> list[Candidate]:
    """A field of candidates, the best predicted first."""
    found = [
        settings(schedule=schedule, micro_batches=m, weight_grad_group=group)
        for m in (4, 8, 16)
        for schedule in ("zb-h1", "1f1b", "gpipe")
        for group in (1, 2, 4)
    ]
    found.append(settings(stages=1, workers=1, micro_batches=1))
    return [candidate(one, 1.0 + place / 100) for place, one in enumerate(found)]


def first_heat(ranked: list[Candidate]) -> list[Candidate]:
    """The trials of the first heat of a job whose own settings are not measured."""
    return [ranked[0], ranked[-1], *spread(ranked, FIRST - 2, [ranked[0].settings, ranked[-1].settings])]


@dataclass
class Machine:
    """Workers that take as long as `seconds` says, on a clock that only they move; `calls` lists who was measured."""

    seconds: dict[PipelineSettings, float]
    fails: dict[PipelineSettings, int] = field(default_factory=dict)
    """After how many calls the workers of these settings fail."""
    now: float = 0.0
    calls: list[PipelineSettings] = field(default_factory=list)
    alive: set[PipelineSettings] = field(default_factory=set)
    ends_at: float = float("inf")

    def clock(self) -> float:
        return self.now

    def start(self, one: Candidate) -> Running:
        self.now += 1.0
        self.alive.add(one.settings)
        return Running(self, one.settings)


@dataclass
class Running:
    machine: Machine
    settings: PipelineSettings

    def measure(self, steps: int) -> list[float]:
        machine = self.machine
        machine.calls.append(self.settings)
        if machine.calls.count(self.settings) > machine.fails.get(self.settings, 10**9):
            raise JobFailed("a worker\nis gone")
        step = machine.seconds.get(self.settings, 2.0)
        machine.now += step * (steps + 1)
        if machine.now >= machine.ends_at:
            raise KeyboardInterrupt
        return [step] * steps

    def close(self) -> None:
        self.machine.alive.discard(self.settings)


def contest(machine: Machine, field_: Sequence[Candidate], own: Candidate | None = None, **options: object) -> Contest:
    budget = Budget(seconds=1000.0, rounds=3)
    return Contest(field_, own, machine.start, budget, machine.clock, **options)  # type: ignore[arg-type]


def test_the_trials_of_the_first_heat_are_no_near_twins() -> None:
    chosen = spread(many(), 6)
    assert chosen[0].settings == many()[0].settings
    for a in chosen:
        for b in chosen:
            assert a is b or distance(a.settings, b.settings) >= 2
    assert len(spread(many(), 12)) == 12, "of few, near ones come too"
    assert len({one.settings for one in spread(many(), 100)}) == len(many())


def test_another_number_of_workers_is_one_respect_whatever_its_schedule() -> None:
    assert distance(settings(), settings(stages=1, workers=1, schedule="gpipe")) == 1
    assert distance(settings(), settings(schedule="zbv", stages=4)) == 1
    assert distance(settings(), settings(weight_grad_group=4, micro_batches=4)) == 2


def test_neighbours_of_the_best_are_of_different_kinds() -> None:
    best = many()[0]
    found = [one.settings.differences(best.settings) for one in near(best, many(), 3, {best.settings})]
    assert sorted(found) == [("micro_batches",), ("schedule",), ("weight_grad_group",)]


def test_the_fastest_wins_although_it_was_not_predicted_so() -> None:
    field_ = many()
    fastest = first_heat(field_)[4].settings
    machine = Machine({fastest: 1.0})
    running = contest(machine, field_)
    running.run()
    best = winner(running.trials, OWN)
    assert best is not None
    assert best.candidate.settings == fastest
    assert machine.alive == set()
    assert best.heat == 3
    dropped = [trial for trial in running.trials if trial.dropped]
    assert dropped
    assert all(trial.dropped.endswith(": 2.0 × the best") for trial in dropped)


def test_a_neighbour_of_the_best_of_the_first_heat_wins_if_it_is_faster() -> None:
    field_ = many()
    first = first_heat(field_)
    hidden = near(first[0], field_, 3, {one.settings for one in first})[2].settings
    running = contest(Machine({first[0].settings: 1.5, hidden: 1.0}), field_)
    running.run()
    best = winner(running.trials, OWN)
    assert best is not None
    assert best.candidate.settings == hidden


def test_all_of_a_heat_take_turns_in_changing_order() -> None:
    field_ = many()
    machine = Machine({})
    running = contest(machine, field_)
    running.run()
    first = [trial.candidate.settings for trial in running.trials[:FIRST]]
    after = machine.calls[FIRST:]  # a call each to warm up
    rounds = [after[k * FIRST : (k + 1) * FIRST] for k in range(3)]
    assert all(set(one) == set(first) for one in rounds)
    assert len({one[0] for one in rounds}) == 3


def test_workers_that_fail_are_told_and_the_others_go_on() -> None:
    field_ = many()
    bad, late = (one.settings for one in first_heat(field_)[:2])
    machine = Machine({}, fails={bad: 0, late: 2})
    running = contest(machine, field_)
    running.run()
    by_settings = {trial.candidate.settings: trial for trial in running.trials}
    assert by_settings[bad].dropped == by_settings[late].dropped == "failed: a worker is gone"
    best = winner(running.trials, OWN)
    assert best is not None
    assert best.candidate.settings not in (bad, late)
    assert machine.alive == set()


def test_if_all_workers_fail_nothing_wins() -> None:
    field_ = many()
    machine = Machine({}, fails={one.settings: 0 for one in field_})
    running = contest(machine, field_)
    running.run()
    assert winner(running.trials, OWN) is None


@dataclass
class Failing(Machine):
    """Workers that start slowly and fail, for another cause each time if they `differ`."""

    differ: bool = False
    started: int = 0
    starts: frozenset[PipelineSettings] = frozenset()

    def start(self, one: Candidate) -> Running:
        self.started += 1
        if one.settings in self.starts:
            return super().start(one)
        self.now += 300.0
        cause = "abcdefghijklmnop"[self.started] if self.differ else "no memory"
        raise JobFailed(f"worker {self.started}: {cause}")


def test_after_two_failures_for_the_same_cause_no_more_are_tried() -> None:
    machine = Failing({})
    running = contest(machine, many())
    running.run()
    assert machine.started == 2
    assert all(trial.failed for trial in running.trials)


@pytest.mark.parametrize("one_runs", [False, True])
def test_trials_that_fail_end_at_the_time_limit(one_runs: bool) -> None:
    """The first one's start takes none of the 1000 seconds; each failure takes 300."""
    field_ = many()
    starts = frozenset({field_[0].settings} if one_runs else ())
    machine = Failing({}, differ=True, starts=starts)
    running = contest(machine, field_)
    running.run()
    assert machine.started == 5
    best = winner(running.trials, OWN)
    assert (best is not None) is one_runs


def test_after_ctrl_c_there_is_what_was_measured_so_far_and_no_worker_is_left() -> None:
    field_ = many()
    fastest = first_heat(field_)[3].settings
    machine = Machine({fastest: 1.0}, ends_at=160.0)
    running = contest(machine, field_)
    with pytest.raises(KeyboardInterrupt):
        running.run()
    best = winner(running.trials, OWN)
    assert best is not None
    assert best.candidate.settings == fastest
    assert machine.alive == set()


def test_the_job_s_own_settings_are_measured_and_win_if_nothing_is_faster() -> None:
    field_ = many()
    own = candidate(OWN, 3.0)
    machine = Machine(dict.fromkeys((one.settings for one in field_), 1.995) | {OWN: 2.0})
    running = contest(machine, field_, own)
    running.run()
    best = winner(running.trials, OWN)
    assert best is not None
    assert best.is_own
    assert why_fastest(best, running.trials).startswith(f"{OWN}: changes least of those that are as fast; ")


def test_own_settings_with_more_workers_than_there_is_room_for_are_measured_but_never_chosen() -> None:
    own = candidate(settings(stages=4, workers=4), 0.5)
    running = contest(Machine({own.settings: 0.1}), many(), own, own_may_win=False)
    running.run()
    trial = next(trial for trial in running.trials if trial.is_own)
    assert trial.is_reference
    assert trial.seconds == 0.1
    assert trial.dropped == "after heat 1: 95.0% shorter than the best that may be chosen"
    best = winner(running.trials, own.settings)
    assert best is not None
    assert not best.is_own


def finished(one: Candidate, seconds: float, **options: object) -> Trial:
    return Trial(one, turns=[seconds], heat=3, **options)  # type: ignore[arg-type]


def test_the_sentence_names_what_is_predicted_to_be_saved() -> None:
    few = finished(candidate(settings(micro_batches=4), 0.8, forward=0.7, schedule=0.1), 0.88)
    own = finished(candidate(OWN, 1.0, forward=0.95, schedule=0.05), 1.0, is_own=True)
    assert why_fastest(few, [own, few]) == (
        "2 workers, 1f1b, 4 micro-batches: fewer, larger products; 12.0% shorter than the job's own settings, the next"
    )
    early = finished(candidate(settings(schedule="zb-h1"), 0.9, forward=0.85, schedule=0.05), 0.9)
    late = finished(candidate(settings(schedule="gpipe"), 1.0, forward=0.8, schedule=0.2), 1.0)
    assert why_fastest(early, [own, early, late]).endswith("10.0% shorter than the job's own settings, the next")
    assert "its schedule waits less" in why_fastest(early, [early, late])
    alone = finished(candidate(settings(stages=1, workers=1), 0.5, forward=0.5), 0.5)
    sends = finished(candidate(settings(), 1.0, forward=0.5, links=0.5), 1.0)
    assert "nothing is sent between workers" in why_fastest(alone, [alone, sends])


def test_the_sentence_says_so_if_the_prediction_was_wrong() -> None:
    slow, fast = finished(candidate(settings(schedule="zbv", stages=4), 1.5), 0.9), finished(candidate(OWN, 1.0), 1.0)
    assert "measured so, although its step was predicted 50.0% longer" in why_fastest(slow, [slow, fast])


def test_of_settings_that_are_as_fast_those_that_keep_the_bits_win() -> None:
    other = finished(candidate(settings(micro_batches=4), 1.0), 1.0)
    same = finished(candidate(settings(schedule="zb-h1"), 1.0), 1.005)
    assert winner([other, same], OWN) is same
    assert winner([other, replace(same, turns=[1.02])], OWN) is other


def test_if_workers_start_slowly_fewer_are_measured_and_never_less_than_two() -> None:
    class Slow(Machine):
        def start(self, one: Candidate) -> Running:
            self.now += 400.0
            return super().start(one)

    machine = Slow({})
    running = contest(machine, many())
    running.run()
    assert 2 <= len(running.trials) < FIRST
    assert all(trial.turns for trial in running.trials)


def test_the_start_of_the_first_processes_takes_none_of_the_time() -> None:
    class SlowAtFirst(Machine):
        def start(self, one: Candidate) -> Running:
            self.now += 2000.0 if not self.calls else 0.0
            return super().start(one)

    running = contest(SlowAtFirst({}), many())
    running.run()
    assert len(running.trials) > FIRST
