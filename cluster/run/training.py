"""A training run from a job to its run directory. `pipetrain train` and the runner use it."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from cluster.actors.host_processes import boot_moment
from cluster.actors.ray_room import room_at_start
from cluster.actors.ray_session import check_address
from cluster.actors.runner_link import RunnerLink
from cluster.checkpoints.at_url import require_target
from cluster.checkpoints.folder import CheckpointFolder, StatePlaces
from cluster.checkpoints.given_weights import check_weights, lines_about_weights, with_place_of_weights
from cluster.data.rules import FREE, SourceRules
from cluster.data.sources import JobData, load_data
from cluster.data.texts.loading import target_bytes
from cluster.run.checkpointing import RunCheckpoints
from cluster.run.connecting import connect
from cluster.run.elastic import Layouts
from cluster.run.evaluation import EvaluationLog
from cluster.run.fault_desk import FaultDesk
from cluster.run.learning import LearningNotes
from cluster.run.recovering import Recovery
from cluster.run.resuming import Resume
from cluster.run.run_dir import RunDir
from cluster.run.run_errors import as_our_error, record_failure
from cluster.run.step_observer import StepObserver, closing_after
from cluster.run.straggling import StragglerNotes
from cluster.trackers import Trackers, require_trackers, require_tracking
from coordinator.checkpoints.position import START, Position
from coordinator.job.checkpoint_section import GRACE_S
from coordinator.job.spec import JobSpec
from coordinator.learning.warning import LearningWarning
from coordinator.plan.blueprint import Blueprint
from coordinator.plan.choosing import chosen
from coordinator.plan.estimate import estimate
from coordinator.plan.layout import lay_out
from coordinator.plan.predicted_step import computing_by_plan
from coordinator.timing.epoch_means import EpochMeans
from coordinator.train.ending import Ending
from coordinator.train.recovery import Policy
from coordinator.train.row_log import RowLog
from coordinator.train.rows import EvalRow, Row, take_row
from coordinator.train.text_measure import TextMeasure, text_measure
from coordinator.train.trainer import Trainer
from coordinator.train.workers import WorkerPlace, Workers, gather
from stages.data import batch_bounds
from stages.errors import GraceOver, StoppedEarly
from stages.orders import Faults


def _quiet(text: str) -> None:
    """Ignore a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Where workers run: in threads (`local`), in the Ray cluster at `address`, or in a Ray that the run starts.

    `session` is the Ray module if this process is connected already.
    `inside` is set in a runner, which is part of Ray already: it has what workers share with their runner. `on_wait` is
    called with what the workers wait for. `most` is the most workers that it may have, None for no limit. `rules` limit
    which data may be read, and what trackers may write and reach.
    """

    local: bool = False
    address: str | None = None
    inside: RunnerLink | None = None
    session: Any = None
    on_wait: Callable[[str], None] = _quiet
    most: int | None = None
    rules: SourceRules = FREE


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended. `stopped`: before its last step, on request. `saved`: the run directory has its weights (a run
    that is stopped before its first step has none). `checkpoint`: the step of the newest checkpoint; None if there is
    none. `loss`: the mean over the rows of the last epoch. `warnings` say why the network may have learnt nothing."""

    steps: int
    steps_total: int
    stopped: bool
    saved: bool
    checkpoint: int | None = None
    loss: float | None
    last_evaluation: EvalRow | None
    warnings: tuple[LearningWarning, ...] = ()


class Run:
    """A training run. `rows()` trains and yields its rows; `result` is set when it has ended."""

    def __init__(
        self,
        spec: JobSpec,
        data: JobData,
        blueprint: Blueprint,
        where: Where,
        *,
        weights: int | None = None,
        trace_steps: int = 0,
        faults: Faults | None = None,
        resume: Resume | None = None,
    ) -> None:
        self._weights, self.resume = weights, resume
        self.spec, self.data, self.blueprint = spec, data, blueprint
        self._where, self._trace_steps, self._faults = where, trace_steps, faults
        self._trainer: Trainer | None = None
        self._ending, self._steps_done = Ending(), 0
        self.grace_s = GRACE_S if spec.checkpoint is None else spec.checkpoint.grace
        """How long the run may take to save its state after `stop`, in seconds."""
        self._token = secrets.token_hex(4)  # of this life of the run, see step_folder
        self.result: RunResult | None = None
        self.warn: Callable[[str], None] = _quiet
        """Called with problems that do not end the run, in the thread that iterates over `rows()`."""

    @staticmethod
    def prepare(
        spec: JobSpec,
        where: Where,
        *,
        trace_steps: int = 0,
        faults: Faults | None = None,
        resume: Resume | None = None,
    ) -> Run:
        """Check the job, read its data and make its blueprint. Raises UserMistake. Starts no workers."""
        if where.address is not None:
            check_address(where.address)
        require_trackers(spec)
        require_tracking(spec, where.rules, links=True)
        require_target(spec.checkpoint, where.rules, links=True)
        where.rules.require_schedule(spec)
        data = load_data(spec, where.rules)
        spec = data.spec
        weights = None
        if resume is None:
            spec = with_place_of_weights(spec, where.rules)
            weights = check_weights(spec, where.rules)
            data = replace(data, spec=spec, said=(*data.said, *lines_about_weights(spec, where.rules)))
        else:
            resume.require_fit(spec, data.fingerprint())
        room = room_at_start(spec, local=where.local, address=where.address, most=where.most)
        spec, lines = chosen(spec, len(data.train), room, **data.for_plan)
        data = replace(data, spec=spec, said=(*data.said, *lines))
        blueprint = lay_out(spec, len(data.train), room, **data.for_plan)
        return Run(spec, data, blueprint, where, weights=weights, trace_steps=trace_steps, faults=faults, resume=resume)

    def refusals(self) -> tuple[str, ...]:
        """Return a line for each worker whose memory limit is too small for its stages."""
        return estimate(self.blueprint, **self.data.for_plan).refusals

    @property
    def steps_total(self) -> int:
        """Steps of the whole job."""
        training = self.spec.training
        return training.n_steps(len(batch_bounds(len(self.data.train), training.batch_size)))

    @property
    def steps_done(self) -> int:
        """Steps reported so far."""
        self._steps_done = max(self._steps_done, self._position.step, self._trainer.steps_done if self._trainer else 0)
        return self._steps_done

    def stop(self, within_s: float | None = None) -> None:
        """Stop after the steps under way, and save the state and the weights, within `within_s`, else `grace_s`."""
        self._ending.ask(self.grace_s if within_s is None else within_s)
        if self._trainer is not None:
            self._trainer.stop()

    def rows(
        self, run_dir: RunDir, on_start: Callable[[Sequence[WorkerPlace]], None] = lambda places: None
    ) -> Generator[Row]:
        """Train, and yield rows as they come. `on_start` is called with the places of the workers.

        The run directory gets an event about the end of the run, however it ends. Raises JobFailed, UserMistake.
        """
        blueprint = self.blueprint
        try:
            if self.data.preprocessing is not None:
                run_dir.save_preprocessing(self.data.preprocessing)
            for line in self.data.said:
                run_dir.event("data", detail=line)
            notes = LearningNotes(self.data, run_dir, self.warn)
            run_dir.event(
                "starting",
                workers=blueprint.n_workers,
                stages=len(blueprint.bounds) - 1,
                bounds=list(blueprint.bounds),
                schedule=blueprint.program.name,
                micro_batches=blueprint.program.n_micro_batches,
                steps_total=self.steps_total,
                placement=list(blueprint.program.placement),
            )
            states = StatePlaces(
                folder=str(run_dir.checkpoints),
                resume=None if self.resume is None else str(self.resume.place),
                token=self._token,
            )
            where = self._where
            with connect(
                *(blueprint, self.data, self._faults, self._give_up, self._weights, states),
                local=where.local,
                address=where.address,
                inside=where.inside,
                session=where.session,
                on_wait=where.on_wait,
                require_time=self._ending.require_time,
            ) as workers:
                places = workers.places()
                on_start(places)
                run_dir.event("started", workers=[place._asdict() for place in places], **boot_moment())
                yield from self._train(workers, run_dir, notes)
        except StoppedEarly:
            self._end(run_dir, self._position.step, saved=False, stopped=True)
        except Exception as error:
            ours = as_our_error(error, run_dir.path, there=run_dir.is_there())
            record_failure(run_dir, ours)
            if ours is error:
                raise
            raise ours from error
        except BaseException as error:  # such as KeyboardInterrupt
            run_dir.event("interrupted", cause=type(error).__name__)
            raise

    def _warn(self, run_dir: RunDir, text: str) -> None:
        run_dir.event("tracker", detail=text)
        self.warn(text)

    def _logged(
        self,
        observer: StepObserver,
        notes: LearningNotes,
        stragglers: StragglerNotes,
        checkpoints: RunCheckpoints,
        recovery: Recovery,
        layouts: Layouts,
    ) -> Iterator[Row]:
        """Yield the rows to record and to show (see `training.log_every`), some of them again after a recovery. The
        observer gets every step, the notes each once."""
        position = self._position
        while True:
            trainer = self._trainer
            assert trainer is not None, "it was made"
            log = RowLog(self.spec.training.log_every, position.open_row)
            checkpoints.open_row = partial(getattr, log, "open_row")
            grows, laid_out = False, self.blueprint
            try:
                for row in trainer.rows():
                    if recovery.is_first(row):
                        notes.row(row)
                    if isinstance(row, EvalRow):
                        yield from log.rest()
                        yield row
                    else:
                        observer.step(row)
                        stragglers.row(row)
                        yield from log.take(row)
                    if not grows and layouts.wants_to_grow():
                        grows = True
                        trainer.stop()
                if not grows or self._ending.asked or trainer.steps_done >= trainer.steps_total:
                    recovery.ended(trainer)
                    yield from log.rest()
                    return
                observer.settled()
                position = recovery.grow(trainer, log)
            except Exception as error:
                try:
                    position = recovery.after(error, trainer)
                except Exception:  # the rows before the error are not lost
                    yield from log.rest()
                    raise
            earlier = trainer if laid_out is self.blueprint else None
            observer.go_on(self._make_trainer(recovery.workers, checkpoints, position, earlier), self.blueprint)
            stragglers.go_on()

    def _make_trainer(
        self, workers: Workers, checkpoints: RunCheckpoints, start: Position, earlier: Trainer | None = None
    ) -> Trainer:
        trainer = self._trainer = Trainer(
            self.blueprint,
            workers,
            train_rows=len(self.data.train),
            validation_rows=len(self.data.validation),
            text=self._text_measure(),
            start=start,
            checkpoints=checkpoints,
            accounts=None if earlier is None else earlier.accounts,
        )
        if self._ending.asked:
            trainer.stop()
        return trainer

    def _text_measure(self) -> TextMeasure | None:
        data = self.spec.data
        source = data.validation if isinstance(data.validation, str) else data.source
        return text_measure(self.spec, source, target_bytes(self.data.validation, self.data.vocabulary))

    @property
    def _position(self) -> Position:
        return START if self.resume is None else self.resume.manifest.position

    def _give_up(self) -> bool:
        return self._ending.asked

    def _train(self, workers: Workers, run_dir: RunDir, notes: LearningNotes) -> Iterator[Row]:
        means, last_evaluation = EpochMeans(), None
        checkpoints = RunCheckpoints(
            *(CheckpointFolder(run_dir.checkpoints, self._token), self.spec.checkpoint, self.spec),
            fingerprint=self.data.fingerprint(),
            train_rows=len(self.data.train),
            event=run_dir.event,
        )
        desk = FaultDesk(
            *(run_dir, self.blueprint, workers),
            train_rows=len(self.data.train),
            validation_rows=len(self.data.validation),
            planned=self._faults,
            warn=lambda text: self.warn(text),
        )
        layouts = Layouts(
            *(self.spec, self.data, self.blueprint, workers),
            most=self._where.most,
            waits=self._where.inside is not None,
            give_up=self._give_up,
            on_change=partial(setattr, self, "blueprint"),
            record=lambda blueprint, **details: recovery.laid_out(blueprint, **details),
        )
        recovery = Recovery(
            run_dir,
            workers,
            checkpoints,
            Policy(max_restarts=self.spec.recovery.max_restarts, backoff_s=self.spec.recovery.backoff),
            self.resume,
            desk,
            layouts,
            warn=lambda text: self.warn(text),
            give_up=self._give_up,
        )
        trainer = self._make_trainer(workers, checkpoints, self._position)
        observer = StepObserver(self.spec.name, run_dir, self.blueprint, self.data, workers, trainer, desk.look)
        observer.begin(self._trace_steps)
        stragglers = StragglerNotes(
            *(workers, self.spec.training.batch_size, run_dir, lambda text: self.warn(text)),
            planned=lambda: computing_by_plan(self.blueprint),
        )
        trackers = Trackers(
            self.spec,
            run_dir.path,
            attempt=run_dir.attempt,
            after=self._position.step_of_last_row,
            warn=lambda text: self._warn(run_dir, text),
            public_only=self._where.rules.public_only,
        )
        judged = EvaluationLog(run_dir, self.data.preprocessing)
        with trackers, checkpoints.uploading(self._ending.require_time):
            with contextlib.suppress(GraceOver), closing_after(observer):
                for row in self._logged(observer, notes, stragglers, checkpoints, recovery, layouts):
                    if not recovery.is_new(row):
                        continue
                    run_dir.metric(row.as_dict())
                    trackers.row(row)
                    if isinstance(row, EvalRow):
                        last_evaluation = row
                        judged.take(row)
                        checkpoints.evaluated(row)
                    else:
                        take_row(means, row)
                    yield row
                observer.settled()
                desk.record_struck()
            notes.ended()
            judged.write()
            assert self._trainer is not None, "it was made"
            trainer = self._trainer
            late = self._ending.is_over
            stopped = late or trainer.steps_done < trainer.steps_total
            saved = trainer.steps_done > 0 and not late
            run_dir.require_there()
            if saved:
                saved_at_end = checkpoints.parameters(trainer.steps_done)
                run_dir.save_model(self.spec, saved_at_end or gather(workers, "parameters"), self.data.vocabulary)
            trackers.close("stopped" if stopped else "finished")  # only once the weights are saved
        figures = {"loss": means.loss, "last_evaluation": last_evaluation, "warnings": tuple(notes.given)}
        self._end(run_dir, trainer.steps_done, saved=saved, stopped=stopped, **figures)

    def _end(self, run_dir: RunDir, step: int, *, saved: bool, stopped: bool, **figures: Any) -> None:
        """Set the result, and write the event of the end."""
        newest = max(CheckpointFolder(run_dir.checkpoints).steps(), default=None)
        made = {"loss": None, "last_evaluation": None, **figures}
        self.result = RunResult(
            steps=step, steps_total=self.steps_total, stopped=stopped, saved=saved, checkpoint=newest, **made
        )
        run_dir.event("stopped" if stopped else "finished", step=step, saved=saved, checkpoint=newest)
