"""Brings a run back after the loss of a worker: what is tried, what is told, and which rows were written already.

[Note: rows that come again] The steps since the checkpoint are made again with the same bits, so their rows stay as
they were written first: in the files, at trackers, and for whoever follows the run. What comes again is compared with
them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cluster.actors.drain_notice import DrainNotice
from cluster.actors.host_processes import boot_moment
from cluster.actors.ray_workers import RayWorkers
from cluster.checkpoints.folder import StatePlaces, newest_whole
from cluster.run.checkpointing import RunCheckpoints
from cluster.run.earlier_run import stays_until
from cluster.run.elastic import Layouts
from cluster.run.fault_desk import FaultDesk
from cluster.run.resuming import Resume
from cluster.run.run_dir import RunDir
from coordinator import run_files
from coordinator.checkpoints.position import START, Position
from coordinator.plan.blueprint import Blueprint
from coordinator.train.recovery import Breakdown, Cause, GiveUp, Policy, decide, loss_of
from coordinator.train.row_log import RowLog
from coordinator.train.rows import EvalRow, Row
from coordinator.train.story import CAUGHT_UP, LAID_OUT, LOST, RECOVERED, story_text
from coordinator.train.trainer import Trainer
from coordinator.train.workers import WorkerPlace, Workers
from stages.errors import GraceOver, JobFailed, NoRoom

_EXACT = ("epoch", "samples", "loss", "grad_norm", "learning_rate", "accuracy", "perplexity")
_LOOK_EVERY_S = 0.1


class _Back(NamedTuple):
    """A recovery whose first new step is awaited."""

    found_at: float
    ready_at: float
    from_step: int
    steps_lost: int
    workers: list[WorkerPlace]
    spare: list[int]  # those of them that were a spare process before


class Recovery:
    """The recoveries of one run. Threads (`--local`) are never replaced. `give_up`: whether somebody stops the run."""

    def __init__(
        self,
        run_dir: RunDir,
        workers: Workers,
        checkpoints: RunCheckpoints,
        policy: Policy,
        resume: Resume | None,
        desk: FaultDesk,
        layouts: Layouts,
        *,
        warn: Callable[[str], None],
        give_up: Callable[[], bool],
    ) -> None:
        self._run_dir, self.workers, self._checkpoints, self._resume = run_dir, workers, checkpoints, resume
        self._policy, self._warn, self._give_up, self._desk, self._layouts = policy, warn, give_up, desk, layouts
        self._history: list[Breakdown] = []
        self._back: _Back | None = None
        self._since: list[float] | None = None
        self._seen: dict[bool, int] = {}  # the last step of the trainer's rows; by whether it is an evaluation
        self._written: dict[bool, int] = {}
        self._before: dict[tuple[bool, int], Mapping[str, Any]] = {}  # rows that are to come again
        self._differs = ""
        self._notice = DrainNotice(lambda: {place.node for place in self.workers.places()})
        if isinstance(workers, RayWorkers):
            checkpoints.is_urgent = self._node_leaves

    def _node_leaves(self) -> bool:
        """Whether Ray told that a node of the run leaves soon: then the state is saved now."""
        found = self._notice.news()
        hosts = {place.node: place.host for place in self.workers.places()}
        for node in found:
            text = f"{hosts[node]} leaves soon, by Ray's notice; saving a checkpoint now"
            self._run_dir.event("node leaves", detail=text)
            self._warn(text)
        return bool(found)

    def after(self, error: Exception, trainer: Trainer) -> Position:
        """Return the position from which all workers go on after the error. Raises the error, or the one that came
        while the worker was being replaced, if that is not tried."""
        if not isinstance(self.workers, RayWorkers):
            raise error
        self._since = self._ends(trainer) or self._since
        found_at, recovering = time.monotonic(), False
        while True:
            loss = self._with_fault(loss_of(error, trainer.steps_done, recovering=recovering))
            decision = decide(loss, self._history, self._policy)
            if isinstance(decision, GiveUp) or loss is None:
                if isinstance(decision, GiveUp) and decision.why:
                    first, *more = error.args
                    error.args = (f"{first} ({decision.why})", *more)
                raise error
            self._history.append(loss)
            self._record_lost(error, loss, decision.after_s)
            self._wait(decision.after_s)
            token = secrets.token_hex(4)
            try:
                why, moves = self._why(loss), self._moves(self.workers, loss)
                if not moves:
                    gone = None if loss.cause is Cause.LINK else loss.worker
                    self.workers.begin_replacing(gone)  # while the new process starts, the checkpoint is checked
                position, place = self._newest(trainer.steps_done)
                resume = None if place is None else str(place)
                states = StatePlaces(folder=str(self._checkpoints.folder.path), resume=resume, token=token)
                new = self._replaced(self.workers, position, states, why, moves=moves)
            except NoRoom as lack:
                first, *more = error.args
                error.args = (f"{first}; {lack}", *more)
                raise error from None
            except JobFailed as another:
                error, recovering = another, True
                continue
            except GraceOver:
                raise
            except Exception as broken:  # Ray itself is lost: the first cause is what counts
                raise error from broken
            self._checkpoints.forget(token)
            self._before = self._rows_after(position)
            self._desk.replaced({place.worker for place in new})
            lost = trainer.steps_done - position.step
            self._back = _Back(found_at, time.monotonic(), position.step, lost, new, self.workers.spare.took[:])
            self.workers.spare.took.clear()
            return position

    def _with_fault(self, loss: Breakdown | None) -> Breakdown | None:
        mark = None if loss is None else self._desk.cause_of(loss.worker)
        return loss if loss is None or mark is None else dataclasses.replace(loss, fault=mark.id)

    def _moves(self, workers: RayWorkers, loss: Breakdown) -> bool:
        """Whether all workers are started elsewhere because one was cut off: Ray would wait for its node."""
        if loss.cause is not Cause.CUT_OFF:
            return False
        for place in workers.places():  # a switch takes several nodes; those that are reached are forgotten at once
            workers.cut_off.note(place.node)
        return self._layouts.has_room_elsewhere()

    def _replaced(
        self, workers: RayWorkers, position: Position, states: StatePlaces, why: str, *, moves: bool
    ) -> list[WorkerPlace]:
        """Replace what is lost, or lay the run out anew if the cluster has no room for that."""
        while True:
            try:
                # a layout that did not start has ended all workers: what is left is to start all
                moves = moves or not workers.places() or self._layouts.has_room_elsewhere()
                if moves:
                    if not self._layouts.move(why, states, self._since):
                        self._since = None  # the new workers' accounts begin with them
                    return list(workers.places())
                return workers.replace(position.step, states, self._since)
            except NoRoom:
                if self._layouts.shrink(why, states):
                    self._since = None  # the new workers' accounts begin with them
                    return list(workers.places())
                if not self._layouts.waits:
                    raise

    def _why(self, loss: Breakdown) -> str:
        """Return why the run is laid out anew if the worker cannot be replaced."""
        place = self.workers.places()[loss.worker]
        if loss.cause in (Cause.NODE, Cause.CUT_OFF):
            return f"node {place.host} ({place.node[:8]}) left"
        return "the cluster has less room"

    def grow(self, trainer: Trainer, log: RowLog) -> Position:
        """Lay the run, which has stopped after a step, out on more workers. If the state of this step could not be
        saved, the workers stay. Return the position from which they go on. Raises JobFailed."""
        token = secrets.token_hex(4)
        position, place = self._newest(trainer.steps_done)
        if place is None or position.step != trainer.steps_done:
            self._layouts.postpone()
            self._checkpoints.go_on()
            open_row = tuple(row.as_dict() for row in log.open_row)
            return Position(step=trainer.steps_done, owes_evaluation=trainer.owes_evaluation(), open_row=open_row)
        self._layouts.grow(StatePlaces(folder=str(self._checkpoints.folder.path), resume=str(place), token=token))
        self._checkpoints.forget(token)
        self._since = None
        return position

    def laid_out(self, blueprint: Blueprint, **details: Any) -> None:
        """Tell of a new layout."""
        self._desk.lay_out(blueprint)
        self._record(LAID_OUT, **details)

    def _ends(self, trainer: Trainer) -> list[float] | None:
        if trainer.ends is None:
            return None
        return [end + clock.offset for end, clock in zip(trainer.ends, self.workers.clocks(), strict=True)]

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._give_up() and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_EVERY_S))

    def _newest(self, step: int) -> tuple[Position, Path | None]:
        """Return the newest whole checkpoint of at most `step` updates; without one, that with which the run began."""
        folder = self._checkpoints.folder

        def report(damaged: int, line: str) -> None:
            self._run_dir.event("checkpoint damaged", detail=line)
            self._warn(line)
            folder.delete(damaged)  # else the repeated step's checkpoint would count as written

        if found := newest_whole(folder, report, most=step):
            place, manifest = found
            return manifest.position, place
        return (START, None) if self._resume is None else (self._resume.manifest.position, self._resume.place)

    # telling -------------------------------------------------------------------------------------------------------

    def _record(self, kind: str, **details: Any) -> None:
        self._run_dir.event(kind, **details)
        self._warn(story_text(kind, details))

    def _record_lost(self, error: Exception, loss: Breakdown, wait_s: float) -> None:
        self._record(
            LOST,
            worker=loss.worker,
            step=loss.step,
            loss=str(loss.cause),
            cause=str(error).partition("\n")[0],
            found_s=error.found_s if isinstance(error, JobFailed) else None,
            wait_s=wait_s,
            fault=loss.fault or None,
        )

    def _record_recovered(self, back: _Back) -> None:
        self._record(
            RECOVERED,
            workers=[place._asdict() for place in back.workers],
            spare=back.spare,
            from_step=back.from_step,
            steps_lost=back.steps_lost,
            replaced_s=back.ready_at - back.found_at,
            first_step_s=time.monotonic() - back.found_at,
            **boot_moment(),
        )

    # rows ----------------------------------------------------------------------------------------------------------

    def is_first(self, row: Row) -> bool:
        """Whether the trainer gives a row of this step for the first time."""
        if self._back is not None:
            self._record_recovered(self._back)
            self._back = None
        return _advance(self._seen, row)

    def is_new(self, row: Row) -> bool:
        """Whether a row of metrics was not written before. One that was is compared with what was written."""
        if _advance(self._written, row):
            return True
        before = self._before.pop((isinstance(row, EvalRow), row.step), None)
        if before is not None:
            now = row.as_dict()
            differing = [name for name in _EXACT if before.get(name) != now.get(name)]
            if differing and not self._differs:
                name = differing[0]
                self._differs = f"step {row.step}: {name} {now.get(name)}, it was {before.get(name)}"
            if not self._before:
                self._record_caught_up(row.step)
        return False

    def _record_caught_up(self, step: int) -> None:
        self._record(CAUGHT_UP, step=step, identical=not self._differs, difference=self._differs)
        self._differs = ""

    def ended(self, trainer: Trainer) -> None:
        """Cut the rows of later steps if the run was stopped before it had made all steps again."""
        if self._before and trainer.steps_done < max(step for _, step in self._before):
            self._run_dir.cut(Position(step=trainer.steps_done))
            self._written.clear()

    def _rows_after(self, position: Position) -> dict[tuple[bool, int], Mapping[str, Any]]:
        found = {}
        with (self._run_dir.path / run_files.METRICS).open("rb") as file:
            for line in file:
                if not stays_until(line, position):
                    with contextlib.suppress(ValueError, KeyError, TypeError):
                        row = json.loads(line)
                        found[row["kind"] == "eval", int(row["step"])] = row
        return found


def _advance(last: dict[bool, int], row: Row) -> bool:
    kind = isinstance(row, EvalRow)
    if row.step <= last.get(kind, 0):
        return False
    last[kind] = row.step
    return True
