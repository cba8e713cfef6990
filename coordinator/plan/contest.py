"""A contest of a job's settings: the best of prediction are measured in turns, and fewer from heat to heat. No I/O.

[Note: heats] All trials of a heat take turns, so that a slow spell of the machine meets all of them. The first heat
has the job's own settings, the best predicted ones that are no near twins of each other, and the best with the fewest
workers: whether a pipeline pays at all is measured. The second has its three best and those most like the best one, the
third the three best of these. A trial's figure is the median over its turns in its last heat of a turn's mean step: the
mean has the pauses between steps, the median leaves slow spells out.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from coordinator.plan.candidates import Candidate, changes_bits
from coordinator.plan.settings import PipelineSettings
from coordinator.texts import counted, share
from stages.errors import PipetrainError

FIRST, BEST, NEAR, LAST = 12, 3, 6, 3
"""Trials of the first heat; those that go on to the second, and those that it adds; trials of the last one."""
_SHARES = (0.4, 0.75, 1.0)
"""The share of the time after which each heat ends, …"""
_LEAST = 0.15
"""… but it lasts at least this share, however long workers took to start."""
_TURN_S = (0.15, 1.0)
"""The shortest and the longest turn."""
_TURNS = 100
"""About so many turns there are in all heats."""
_MOST_STEPS = 400
_ALIKE = 0.01
"""Of trials whose figures differ by less, the one that changes least is chosen."""
_CLOSE = 0.05
"""The job's own settings stay in the contest if their step is at most this share longer than the best."""


class TrialWorkers(Protocol):
    """A candidate's running workers."""

    def measure(self, steps: int) -> list[float]:
        """Train, and return the seconds of each of `steps` steps. Raises PipetrainError."""

    def close(self) -> None:
        """End the workers."""


@dataclass(eq=False, slots=True)
class Trial:
    """A candidate in the contest. `is_reference`: it has more workers than may be chosen. `dropped` says why it is no
    longer measured."""

    candidate: Candidate
    is_own: bool = False
    is_reference: bool = False
    dropped: str = ""
    heat: int = 0
    turns: list[float] = field(default_factory=list)
    """The mean step of each turn of its last heat, in seconds."""
    steps: list[float] = field(default_factory=list)
    """The seconds of all steps that count."""
    workers: TrialWorkers | None = None
    steps_a_turn: int = 2

    @property
    def seconds(self) -> float | None:
        """The measured step (see [Note: heats]); None if it was not measured."""
        return statistics.median(self.turns) if self.turns else None

    @property
    def failed(self) -> bool:
        """Whether its workers failed."""
        return bool(self.dropped) and not self.turns


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How long a contest may take: `seconds`, or `rounds` of turns a heat, whichever is over first. Every heat has at
    least one round."""

    seconds: float
    rounds: int | None = None


class Contest:
    """Measures `ranked` candidates and `own`, the job's settings; None if these cannot be measured here. Without
    `own_may_win` they are measured in the first heat, to compare.

    `start` starts a candidate's workers. `trials` has what was measured, at any time.
    """

    def __init__(
        self,
        ranked: Sequence[Candidate],
        own: Candidate | None,
        start: Callable[[Candidate], TrialWorkers],
        budget: Budget,
        clock: Callable[[], float],
        *,
        own_may_win: bool = True,
        notify: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._ranked, self._own, self._start, self._budget, self._clock = ranked, own, start, budget, clock
        self._own_may_win, self._notify = own_may_win, notify
        self._began = clock()
        self.trials: list[Trial] = []

    def run(self) -> None:
        """Perform all heats. Ends all workers, even after an exception."""
        try:
            self._notify("starting workers")
            self._enter(self._first(), 1)
            self._heat(1)
            best = self._keep(BEST)
            if best:  # workers may all have failed
                tried = {trial.candidate.settings for trial in self.trials}
                self._enter(near(best[0].candidate, self._ranked, NEAR, tried), 2)
                self._heat(2)
                if len(self._keep(LAST)) > 1:
                    self._heat(3)
        finally:
            for trial in self.trials:
                self._close(trial)

    def _first(self) -> list[Candidate]:
        step = self._ranked[0].predicted.seconds if self._ranked else 0.0
        n = max(2, min(FIRST, int(_SHARES[0] * self._budget.seconds / (10 * max(step, _TURN_S[0] / 5)))))
        found = [] if self._own is None else [self._own]
        others = [c for c in self._ranked if self._own is None or c.settings != self._own.settings]
        found += others[:1]
        fewest = min(others, key=lambda c: c.settings.workers, default=None)  # of equal ones the best
        if fewest is not None and all(c.settings.workers > fewest.settings.workers for c in found):
            found.append(fewest)
        return [*found, *spread(others, n - len(found), [c.settings for c in found])]

    def _enter(self, candidates: Iterable[Candidate], heat: int) -> None:
        """Start candidates for a heat: until two run, as long as the whole time is not over, and others as long as the
        heat's is not. Two that fail for the same cause before any runs end the contest: more would fail, too."""
        for candidate in candidates:
            is_own = self._own is not None and candidate.settings == self._own.settings
            trial = Trial(candidate, is_own=is_own, is_reference=is_own and not self._own_may_win)
            alive = sum(one.workers is not None for one in self.trials)
            until = self._began + (_SHARES[heat - 1] if alive >= 2 else 1.0) * self._budget.seconds
            if len(self.trials) >= 2 and (self._clock() >= until or (not alive and self._fails_alike())):
                return
            self.trials.append(trial)
            self._try(trial, partial(self._warm_up, trial))
            if len(self.trials) == 1:
                self._began = self._clock()  # the start of the first processes takes none of the time

    def _fails_alike(self) -> bool:
        """Whether two trials have failed for the same cause, but for the numbers in it: which worker, which step."""
        causes = Counter(re.sub(r"\d+", "", trial.dropped) for trial in self.trials if trial.failed)
        return max(causes.values(), default=0) >= 2

    def _warm_up(self, trial: Trial) -> None:
        trial.workers = self._start(trial.candidate)
        step = statistics.median(trial.workers.measure(2))
        turn = max(_TURN_S[0], min(_TURN_S[1], self._budget.seconds / _TURNS))
        trial.steps_a_turn = max(1, min(_MOST_STEPS, round(turn / max(step, 1e-9))))

    def _heat(self, heat: int) -> None:
        whole = self._budget.seconds
        until = max(self._began + _SHARES[heat - 1] * whole, self._clock() + _LEAST * whole)
        alive = [trial for trial in self.trials if trial.workers is not None]
        self._notify(f"heat {heat}: {counted(len(alive), 'choice')} of settings take turns")
        done = 0
        while alive and (done == 0 or (self._clock() < until and done != self._budget.rounds)):
            shift = done % len(alive)
            for trial in [*alive[shift:], *alive[:shift]]:  # no trial always comes after the same other one
                self._try(trial, partial(self._turn, trial, heat))
            alive = [trial for trial in alive if trial.workers is not None]
            done += 1

    def _turn(self, trial: Trial, heat: int) -> None:
        assert trial.workers is not None, "it is alive"
        taken = trial.workers.measure(trial.steps_a_turn)
        if trial.heat != heat:
            trial.heat, trial.turns = heat, []
        trial.turns.append(statistics.fmean(taken))
        trial.steps += taken

    def _try(self, trial: Trial, work: Callable[[], None]) -> None:
        try:
            work()
        except PipetrainError as error:
            trial.dropped, trial.turns = f"failed: {' '.join(str(error).split())}", []
            self._close(trial)

    def _keep(self, most: int) -> list[Trial]:
        """Drop all but the best trials, and return these."""
        alive = sorted((e for e in self.trials if e.workers is not None), key=lambda e: e.seconds or float("inf"))
        fit = [e for e in alive if not e.is_reference]
        best = [e for e in fit if e in fit[:most] or (e.is_own and _seconds(e) <= (1 + _CLOSE) * _seconds(fit[0]))]
        for trial in alive:
            if trial not in best:
                trial.dropped = f"after heat {trial.heat}: {_slower(trial, best[0])}" if best else ""
                self._close(trial)
        return best

    def _close(self, trial: Trial) -> None:
        workers, trial.workers = trial.workers, None
        if workers is not None:
            workers.close()


def _slower(trial: Trial, best: Trial) -> str:
    assert trial.seconds is not None, "it had a turn"
    assert best.seconds is not None, "it had a turn"
    ratio = trial.seconds / best.seconds
    if ratio < 1:  # it has more workers than may be chosen
        return f"{share(1 - ratio)} shorter than the best that may be chosen"
    return f"{ratio:.1f} × the best" if ratio >= 2 else f"{share(ratio - 1)} longer than the best"


def distance(a: PipelineSettings, b: PipelineSettings) -> int:
    """Return in how many respects two settings differ: workers, schedule, micro-batches, groups, memory and cut."""
    names = set(a.differences(b))
    respects = (
        {"workers"},
        {"stages", "schedule"},
        {"micro_batches"},
        {"weight_grad_group"},
        {"recompute", "partition"},
    )
    if "workers" in names:
        names -= {"stages", "schedule"}
    return sum(bool(names & respect) for respect in respects)


def spread(ranked: Sequence[Candidate], n: int, taken: Sequence[PipelineSettings] = ()) -> list[Candidate]:
    """Return the n best candidates that differ from each other and from those `taken` in two respects; if there are not
    so many, then also others that differ in one."""
    found: list[Candidate] = []
    for apart in (2, 1):
        for candidate in ranked:
            settings = [*taken, *(one.settings for one in found)]
            if len(found) < n and all(distance(candidate.settings, other) >= apart for other in settings):
                found.append(candidate)
    return found


def near(best: Candidate, ranked: Sequence[Candidate], n: int, tried: set[PipelineSettings]) -> list[Candidate]:
    """Return the best predicted candidates that differ from `best` in one respect and were not tried: of each respect
    one, then others."""
    others = [c for c in ranked if c.settings not in tried and distance(c.settings, best.settings) == 1]
    found: list[Candidate] = []
    seen: set[tuple[str, ...]] = set()
    for candidate in others:
        kind = candidate.settings.differences(best.settings)
        if kind not in seen:
            seen.add(kind)
            found.append(candidate)
    return [*found, *(c for c in others if c not in found)][:n]


def winner(trials: Sequence[Trial], own: PipelineSettings) -> Trial | None:
    """Return the fastest trial that no heat has dropped. Of those that are as fast, the job's own settings come first,
    then those that keep its bits, then those with the fewest workers. None if nothing was measured."""
    measured = [trial for trial in trials if trial.seconds is not None and not trial.is_reference]
    if not measured:
        return None
    final = [trial for trial in measured if not trial.dropped] or measured
    shortest = min(_seconds(trial) for trial in final)
    alike = [trial for trial in final if _seconds(trial) <= shortest * (1 + _ALIKE)]

    def place(trial: Trial) -> tuple[bool, bool, int, float]:
        settings = trial.candidate.settings
        return not trial.is_own, changes_bits(settings, own), settings.workers, _seconds(trial)

    return min(alike, key=place)


def _seconds(trial: Trial) -> float:
    assert trial.seconds is not None, "it was measured"
    return trial.seconds
