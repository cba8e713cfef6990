"""Candidates for a job's settings, with predicted step times: for `pipetrain tune` and `pipeline: auto`. No I/O.

Not every combination is predicted. First each number of workers and micro-batches with two schedules; then every
schedule for the best of these; then groups of weight gradients, and the cut by measured costs, for the best of those;
at last a searched schedule (`auto`) for the very best, if its search is short.
What is tried is limited by counts, not by a clock, so the answer is always the same for the same times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from coordinator.job.schedule_names import AUTO, SCHEDULES, TWO_STAGES_A_WORKER, fewest_micro_batches
from coordinator.job.spec import JobSpec
from coordinator.plan.blueprint import Blueprint, make_blueprint
from coordinator.plan.partition import Bounds, balanced_bounds
from coordinator.plan.settings import CHANGES_BITS, PipelineSettings, trial_job
from coordinator.timing.machine_times import MachineTimes
from coordinator.timing.step_time import PredictedStep
from stages.errors import InvalidJob, InvalidSchedule

_MOST_MICRO_BATCHES = 64
_MOST_FORWARDS = 2**14
"""Forward passes, stages × micro-batches, of the largest step that is predicted."""
_ALL_WORKERS = 8
"""Every number of workers up to this one is tried; of larger ones the powers of two, and the largest."""
_FIRST = ("1f1b", "zb-h1")
_PAIRS, _FOR_GROUPS, _FOR_CUTS, _FOR_SEARCHES = 8, 16, 4, 2
"""How many of the best go on: numbers of workers and micro-batches, and settings."""
_LEAST_GAIN = 0.001
_MOST_SEARCHED = 256
"""Forward passes of the largest step for which a schedule is searched: one to two seconds of computing."""
_SPARING = ("1f1b", "zb-h1", "v-half", "v-min")
"""The schedules that keep the fewest micro-batches."""

Predict = Callable[[Blueprint], PredictedStep]
Cut = Callable[[Blueprint], tuple[int, ...]]
"""Returns the layers of each stage of the evenest cut by measured costs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Which settings may be tried: at most `most_workers` workers, and those named in `kept` as they are in `own`."""

    most_workers: int
    own: PipelineSettings
    kept: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """Settings with their plan and their predicted step. `memory`: bytes of the worker that needs most, None if they
    were not counted; `parameters`: bytes of all weights, gradients and optimizer state, 0 if they were not counted;
    `refusal`: why a worker's memory does not suffice."""

    settings: PipelineSettings
    blueprint: Blueprint
    predicted: PredictedStep
    memory: int | None = None
    parameters: int = 0
    refusal: str | None = None


def micro_batch_counts(batch_size: int, own: int) -> list[int]:
    """Return the numbers of micro-batches to try: powers of two and divisors of the batch up to 64, and the job's."""
    most = min(batch_size, _MOST_MICRO_BATCHES)
    found = {m for m in range(1, most + 1) if m & (m - 1) == 0 or batch_size % m == 0}
    return sorted({*found, own})


def worker_counts(most: int) -> list[int]:
    """Return the numbers of workers to try."""
    return [w for w in range(1, most + 1) if w <= _ALL_WORKERS or w & (w - 1) == 0 or w == most]


def group_sizes(micro_batches: int) -> list[int]:
    """Return the groups of weight gradients to try: powers of two, and all micro-batches."""
    return sorted({2**k for k in range(micro_batches.bit_length()) if 2**k <= micro_batches} | {micro_batches})


class Candidates:
    """Finds and ranks the candidates of one job. `cut` gives a second cut to try; None: only that of the plan. `times`
    are those for which schedules are searched; None: none is searched."""

    def __init__(
        self,
        spec: JobSpec,
        n_train: int,
        scope: Scope,
        predict: Predict,
        *,
        cut: Cut | None = None,
        times: MachineTimes | None = None,
    ) -> None:
        # a plan needs each size of batch once, and an epoch may have a million batches
        batch, self._times = spec.training.batch_size, times
        self._n_train = n_train if n_train < 2 * batch else batch + n_train % batch
        self._spec, self._scope, self._predict, self._cut = spec, scope, predict, cut
        self._n_parts = len(spec.model_spec().network.ops)
        self._found: dict[PipelineSettings, Candidate | None] = {}

    @property
    def own(self) -> PipelineSettings:
        """The job's own settings."""
        return self._scope.own

    @property
    def most_workers(self) -> int:
        """The most workers that are tried."""
        return max(self._workers(), default=1)

    @property
    def memory_limit(self) -> int | None:
        """The bytes that a worker may take."""
        return self._spec.resources.memory_per_worker

    @property
    def n_predicted(self) -> int:
        """How many settings were predicted so far."""
        return sum(candidate is not None for candidate in self._found.values())

    def add(self, settings: PipelineSettings) -> Candidate | None:
        """Predict settings, once; None if they have no plan. The job's own may have any schedule. With one stage all
        schedules take the same time: the first one stands for all, unless memory, in which they differ, has a limit."""
        key = replace(settings, schedule="") if settings.stages == 1 and self.memory_limit is None else settings
        if key not in self._found:
            self._found[key] = self._made(settings)
        return self._found[key]

    def ranked(self) -> list[Candidate]:
        """Return the candidates, the shortest predicted step first; of equal ones, those that keep the job's bits and
        have the fewest stages first."""
        self._take(self._first())
        pairs = dict.fromkeys((c.settings.workers, c.settings.micro_batches) for c in self._order())
        for workers, parts in [*pairs][:_PAIRS]:
            self._take(self._settings(name, workers, parts) for name in self._schedules(workers, parts))
        for candidate in self._order()[:_FOR_GROUPS] if "weight_grad_group" not in self._scope.kept else ():
            groups = group_sizes(candidate.settings.micro_batches)
            self._take(replace(candidate.settings, weight_grad_group=group) for group in groups)
        for candidate in self._order()[:_FOR_CUTS] if self._cut and "partition" not in self._scope.kept else ():
            assert self._cut is not None, "the line before asks for it"
            if (partition := self._cut(candidate.blueprint)) != layers_of(candidate.blueprint.bounds):
                self._take([replace(candidate.settings, partition=partition)])
        if self._times is not None and "schedule" not in self._scope.kept:
            self._search()
        return self._order()

    def sparing(self) -> list[Candidate]:
        """Return candidates that take as little memory as any."""
        counts = self._counts()
        settings = [
            replace(one, recompute=one.recompute if "recompute" in self._scope.kept else "full")
            for name in self._names(_SPARING)
            for workers in self._workers()[-2:]
            for parts in dict.fromkeys((max(counts), min(counts)))
            for one in self._settings_of(name, workers, parts)
        ]
        return [found for one in settings if (found := self.add(one)) is not None]

    # which settings ------------------------------------------------------------------------------------------------

    def _first(self) -> Iterator[PipelineSettings | None]:
        yield self._scope.own if self._scope.own.workers <= self._scope.most_workers else None
        for workers in self._workers():
            for parts in self._counts():
                for name in self._names(_FIRST[: 1 if workers == 1 else None]):
                    yield self._settings(name, workers, parts)

    def _search(self) -> None:
        """Add a searched schedule for the best settings that have several workers; it is left out if a built-in one is
        as good."""
        able = [
            one.settings
            for one in self._order()
            if one.settings.workers > 1 and one.settings.stages * one.settings.micro_batches <= _MOST_SEARCHED
        ]
        for settings in [*dict.fromkeys(replace(one, schedule=AUTO) for one in able)][:_FOR_SEARCHES]:
            found = self.add(settings)
            searched = None if found is None else found.blueprint.searched
            if searched is not None and (searched.gain or 0.0) < _LEAST_GAIN and settings != self.own:
                self._found[settings] = None

    def _workers(self) -> list[int]:
        scope = self._scope
        if "workers" in scope.kept:
            return [scope.own.workers]
        return worker_counts(min(scope.most_workers, scope.own.stages if "stages" in scope.kept else self._n_parts))

    def _counts(self) -> list[int]:
        own = self._scope.own.micro_batches
        kept = "micro_batches" in self._scope.kept
        return [own] if kept else micro_batch_counts(self._spec.training.batch_size, own)

    def _names(self, names: Sequence[str]) -> Sequence[str]:
        return (self._scope.own.schedule,) if "schedule" in self._scope.kept else names

    def _schedules(self, workers: int, parts: int) -> list[str]:
        names = self._names(SCHEDULES if workers > 1 else _FIRST[:1])
        return [name for name in names if fewest_micro_batches(name, workers) <= parts]

    def _settings_of(self, name: str, workers: int, parts: int) -> Iterator[PipelineSettings]:
        found = self._settings(name, workers, parts)
        if found is not None:
            yield found

    def _settings(self, name: str, workers: int, parts: int) -> PipelineSettings | None:
        scope, own = self._scope, self._scope.own
        each = 2 if name in TWO_STAGES_A_WORKER else 1
        stages = own.stages if "stages" in scope.kept else min(self._n_parts, each * workers)
        if not workers <= stages <= self._n_parts or stages * parts > _MOST_FORWARDS:
            return None
        if stages == 1 and self.memory_limit is None and "schedule" not in scope.kept:  # the job's own, if it can be
            name = own.schedule if self._suits_one_stage(parts) else _FIRST[0]
        return PipelineSettings(
            stages=stages,
            workers=workers,
            schedule=name,
            micro_batches=parts,
            weight_grad_group=own.weight_grad_group if "weight_grad_group" in scope.kept else 1,
            recompute=own.recompute if "recompute" in scope.kept else "none",
            partition=own.partition if "partition" in scope.kept else "auto",
        )

    def _suits_one_stage(self, parts: int) -> bool:
        """Whether the job's own schedule can stay if there is one stage: a file only if it has no more."""
        own = self._scope.own
        if own.schedule in (*SCHEDULES, AUTO):
            return own.schedule not in TWO_STAGES_A_WORKER
        return own.stages == 1 and parts <= own.micro_batches

    # what they take ------------------------------------------------------------------------------------------------

    def _take(self, many: Iterable[PipelineSettings | None]) -> None:
        for one in many:
            if one is not None:
                self.add(one)

    def _made(self, settings: PipelineSettings) -> Candidate | None:
        try:
            blueprint = make_blueprint(trial_job(self._spec, settings), self._n_train, self._times)
        except (InvalidJob, InvalidSchedule):  # too few micro-batches for so many workers
            return None
        return Candidate(settings=settings, blueprint=blueprint, predicted=self._predict(blueprint))

    def _order(self) -> list[Candidate]:
        own = self._scope.own

        def place(candidate: Candidate) -> tuple[float, bool, int, int]:
            settings = candidate.settings
            seconds = float(f"{candidate.predicted.seconds:.6g}")  # the last bits of a sum of times decide nothing
            return seconds, changes_bits(settings, own), settings.stages, settings.weight_grad_group

        most = self._scope.most_workers
        return sorted((c for c in self._found.values() if c is not None and c.settings.workers <= most), key=place)


def layers_of(bounds: Bounds) -> tuple[int, ...]:
    """Return how many layers each stage has."""
    return tuple(stop - first for first, stop in pairwise(bounds))


def cut_by(times: MachineTimes) -> Cut:
    """Return a function that cuts a plan's layers by their times for its micro-batches, without regard to memory."""

    def cut(blueprint: Blueprint) -> tuple[int, ...]:
        rows, n_layers = max(blueprint.micro_batch_rows), blueprint.bounds[-1]
        parts = [times.parts[k, k + 1] for k in range(n_layers)]
        costs = [part.forward(rows) + part.input_gradient(rows) + part.weight_gradient(rows) for part in parts]
        return layers_of(balanced_bounds(costs, blueprint.program.n_stages))

    return cut


def changes_bits(settings: PipelineSettings, own: PipelineSettings) -> bool:
    """Whether weights differ in their last bits from those with the job's own settings (see coordinator.plan.settings,
    [Note: settings and bits])."""
    return any(settings.entries()[path] != own.entries()[path] for path in CHANGES_BITS)
