"""Faults of a run: takes requests for them, tells when they strike, and which loss of a worker is one of them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cluster.actors.fault_marks import Mark, marks
from cluster.actors.ray_workers import RayWorkers
from cluster.run.run_dir import RunDir
from coordinator import run_files
from coordinator.chaos.requests import FaultRequest, problem_of
from coordinator.chaos.story import PLANNED, REFUSED, STRUCK, chaos_text
from coordinator.chaos.timetable import Timetable
from coordinator.job.regular_files import read_regular
from coordinator.plan.blueprint import Blueprint
from coordinator.train.workers import Workers
from stages.errors import JobFailed
from stages.orders import Faults

_REQUEST_BYTES = 10_000


class FaultDesk:
    """The faults of one run. `planned` are those that it begins with. Without faults and requests it looks for one
    file now and then. The trainer's thread calls it between two rows, and after the loss of a worker."""

    def __init__(
        self,
        run_dir: RunDir,
        blueprint: Blueprint,
        workers: Workers,
        *,
        train_rows: int,
        validation_rows: int,
        planned: Faults | None,
        warn: Callable[[str], None],
    ) -> None:
        self._run_dir, self._blueprint, self._workers, self._warn = run_dir, blueprint, workers, warn
        self._rows = train_rows, validation_rows
        self._told = set(marks(run_dir.path))  # by an attempt before
        self._open: list[Mark] = []  # whose loss is not told yet
        self.active = bool(planned)
        """Whether a fault was planned."""
        if (content := self._take_request()) is not None:
            self._refuse(str(content.get("id")), "the request was made before the run began; make it again")

    def look(self, steps_done: int) -> None:
        """Answer a request if there is one, and tell what has struck."""
        if (content := self._take_request()) is not None:
            self._answer(content, steps_done)
        self.record_struck()

    def record_struck(self) -> None:
        """Tell which faults have struck since the last call."""
        if not self.active:
            return
        for name, mark in marks(self._run_dir.path, known=self._told).items():
            self._told.add(name)
            if mark.loses_a_worker:
                self._open.append(mark)
            self._record(STRUCK, **mark._asdict())

    def cause_of(self, worker: int) -> Mark | None:
        """Return the fault that explains the loss of a worker, once; None if there is none. A worker that is cut off
        may be told as the loss of another one."""
        self.record_struck()
        own = [mark for mark in self._open if mark.worker == worker]
        others = [mark for mark in self._open if mark.kind == "partition"]
        for mark in (own or others)[:1]:
            self._open.remove(mark)
            return mark
        return None

    def replaced(self, workers: set[int]) -> None:
        """Forget the faults of workers that were replaced, and of links, which are new."""
        self._open = [mark for mark in self._open if mark.worker not in workers and mark.kind != "partition"]

    def lay_out(self, blueprint: Blueprint) -> None:
        """Take in another plan of the run, all of whose workers are new."""
        self._blueprint = blueprint
        self._open.clear()

    def _take_request(self) -> Mapping[str, Any] | None:
        path = self._run_dir.path / run_files.FAULT_REQUEST
        try:
            content = json.loads(read_regular(path, _REQUEST_BYTES))
            if path.lstat().st_uid != os.geteuid():  # somebody else may write into the folder
                content = None
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            content = None
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        return content if isinstance(content, dict) else None

    def _answer(self, content: Mapping[str, Any], steps_done: int) -> None:
        name = str(content.get("id"))
        try:
            request = FaultRequest.read(content)
        except ValueError as error:
            self._refuse(name, str(error))
            return
        workers = self._workers
        if not isinstance(workers, RayWorkers):
            self._refuse(name, "the workers are threads of one process (--local)")
            return
        problem = problem_of(request, Timetable(self._blueprint, *self._rows), steps_done=steps_done)
        if not problem:
            self.active = True
            try:
                begun = workers.plan_fault(request.worker, request.fault())
                problem = "" if begun is None else f"step {request.step} is past: the worker is in step {begun}"
            except JobFailed as error:  # unless the fault itself kept the worker from answering
                problem = "" if self._has_struck(name) else str(error).partition("\n")[0]
        if problem:
            self._refuse(name, problem)
            return
        self._record(PLANNED, id=name, kind=request.what, worker=request.worker, point=request.at, step=request.step)

    def _has_struck(self, name: str) -> bool:
        return any(mark.id == name for mark in marks(self._run_dir.path, known=self._told).values())

    def _refuse(self, name: str, cause: str) -> None:
        self._record(REFUSED, id=name, cause=cause)

    def _record(self, kind: str, /, **details: Any) -> None:
        self._run_dir.event(kind, **details)
        self._warn(chaos_text(kind, details))


def put_request(run: Path, request: FaultRequest) -> bool:
    """Put a request into a run directory; return False if it has one that was not answered yet. Raises OSError."""
    temporary = run / run_files.unfinished(f"{run_files.FAULT_REQUEST}.{request.id}")
    try:
        temporary.write_text(json.dumps(request._asdict()), encoding="ascii")
        os.link(temporary, run / run_files.FAULT_REQUEST)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True
