"""The run directory: a job's files in one folder, readable without pipetrain."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO

import orjson

from cluster.checkpoints.whole_model import CheckpointParameters
from cluster.data.tables.preprocessing import Preprocessing
from cluster.data.texts.loading import Vocabulary
from cluster.run.earlier_run import (
    cut_rows,
    last_step,
    lock_folder,
    make_room,
    remove_later,
    require_not_in_use,
    rows_until,
)
from cluster.run.event_log import EventLog
from cluster.run.run_errors import run_directory_gone
from cluster.run.saved_model import save_model, write_whole
from coordinator import run_files
from coordinator.checkpoints.position import Position
from coordinator.job.regular_files import read_regular
from coordinator.job.spec import JobSpec
from stages.arrays import Array
from stages.errors import HostFailed, UserMistake

_REQUEST_BYTES = 10_000


class TraceRequest(NamedTuple):
    """A request for a trace, from a file in the run directory. The event that reports the outcome contains `id`."""

    steps: int
    id: str = ""


class RunDir:
    """The run directory of one job, opened for writing: a new one by `create`, one of a service's job by `reopen`.

    Every event contains `attempt`, unless that is None.
    """

    def __init__(self, path: Path, attempt: int | None = None) -> None:
        self.path = path
        self._stamp = {} if attempt is None else {"attempt": attempt}
        self._metrics: TextIO | None = None
        self._accounts: BinaryIO | None = None
        self._events: EventLog | None = None
        self._made: list[Path] = []
        self._lock: int | None = None
        self.last_account: Mapping[str, Any] | None = None
        """The last line that `account` appended; None before."""

    @property
    def attempt(self) -> int:
        """The attempt for which the directory is open, from 1."""
        return self._stamp.get("attempt", 1)

    @staticmethod
    def create(
        path: Path, spec: JobSpec, *, overwrite: bool = False, notify: Callable[[str], None] = lambda text: None
    ) -> RunDir:
        """Make a new run directory with its job.yaml. No other command can use it until it is closed.

        An earlier run in it is removed if it ended before its first step, or if `overwrite` is set; `notify` is called
        with a line about the removal. Raises UserMistake if an earlier run stays there, if another command is training
        into it, or if it cannot be written.
        """
        run_dir = RunDir(path)
        try:
            run_dir._made = [place for place in (path, *path.parents) if not place.exists()]
            path.mkdir(parents=True, exist_ok=True)
            run_dir._lock = lock_folder(path)
            make_room(path, overwrite=overwrite, notify=notify)
            return run_dir._open(spec)
        except UserMistake:
            run_dir.close()
            raise
        except OSError as error:
            run_dir.discard()  # else it is in the way of the next try
            reason = (error.strerror or type(error).__name__).lower()
            raise UserMistake(f"{path}: cannot be written as a run directory: {reason}") from None

    @staticmethod
    def reopen(path: Path, spec: JobSpec | None, attempt: int) -> RunDir:
        """Open the run directory of a service's job for one attempt. Writes no job.yaml if `spec` is None. Raises
        HostFailed if the directory cannot be written."""
        try:
            return RunDir(path, attempt)._open(spec)
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
            raise HostFailed(f"{path}: the run directory cannot be written: {reason}") from None

    def go_on(self, position: Position) -> int:
        """Begin an attempt with the rows of the one before, up to a position; what was left of later steps is removed.
        Return how many steps that the attempt before had made are made again. Raises OSError."""
        before = self.path / run_files.of_attempt(run_files.METRICS, self.attempt - 1)
        assert self._metrics is not None, "a run that was opened to read"
        remove_later(self.path, position)
        if not before.exists():  # the first attempt of a job that goes on with another one
            return 0
        self._metrics.write(b"".join(rows_until(before, position)).decode())
        return max(0, last_step(before) - position.step)

    @staticmethod
    def resume(path: Path, spec: JobSpec, position: Position) -> RunDir:
        """Open the run directory of an earlier run to go on from a position: what the run left of later steps is
        removed. No other command can use it until it is closed. Raises UserMistake."""
        require_not_in_use(path)
        run_dir = RunDir(path)
        try:
            run_dir._lock = lock_folder(path)
            cut_rows(path, position)
            remove_later(path, position)
            run_dir._open(spec)
        except UserMistake:
            run_dir.close()
            raise
        except OSError as error:
            run_dir.close()
            reason = (error.strerror or type(error).__name__).lower()
            raise UserMistake(f"{path}: cannot be written as a run directory: {reason}") from None
        run_dir._made = []  # nothing of the earlier run is this run's to discard
        return run_dir

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints; it may not exist."""
        return self.path / run_files.CHECKPOINTS

    def _open(self, spec: JobSpec | None) -> RunDir:
        own = [self.path / name for name in run_files.MADE_BEFORE_STEPS]
        self._made = [*(place for place in own if not place.exists()), *self._made]
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._open_rows()
            self._events = EventLog(self.path, self._stamp)
            if spec is not None:  # last: a folder with a job file but no logs is not a run directory, see earlier_run
                write_whole(self.path / run_files.JOB, spec.to_yaml().encode())
        except OSError:
            self.close()
            raise
        return self

    def metric(self, row: Mapping[str, Any]) -> None:
        """Append a row to metrics.jsonl."""
        assert self._metrics is not None, "a run that was opened to read"
        self._metrics.write(json.dumps(row, allow_nan=False) + "\n")

    def cut(self, position: Position) -> None:
        """Remove the rows and the accounts of later steps. Raises OSError."""
        for file in (self._metrics, self._accounts):
            if file is not None:
                file.close()
        cut_rows(self.path, position)
        self._open_rows()

    def _open_rows(self) -> None:
        self._metrics = (self.path / run_files.METRICS).open("a", buffering=1, encoding="utf-8")
        self._accounts = (self.path / run_files.ACCOUNTS).open("ab", buffering=0)

    def account(self, line: Mapping[str, Any]) -> None:
        """Append a step's line to accounts.jsonl."""
        assert self._accounts is not None, "a run that was opened to read"
        self._accounts.write(orjson.dumps(line) + b"\n")
        self.last_account = line

    def timeline(self, content: Mapping[str, Any]) -> None:
        """Replace timeline.json. It is not flushed to disk, because only its newest version is of use."""
        temporary = self.path / run_files.unfinished(run_files.TIMELINE)
        temporary.write_bytes(orjson.dumps({"attempt": self.attempt, **content}))
        temporary.replace(self.path / run_files.TIMELINE)

    def plan(self, content: Mapping[str, Any]) -> None:
        """Replace plan.json, whole or not at all. Raises OSError."""
        write_whole(self.path / run_files.PLAN, orjson.dumps({"attempt": self.attempt, **content}) + b"\n")

    def evaluation(self, content: Mapping[str, Any]) -> None:
        """Replace evaluation.json, whole or not at all. Raises OSError."""
        text = json.dumps({"attempt": self.attempt, **content}, ensure_ascii=False, allow_nan=False) + "\n"
        write_whole(self.path / run_files.EVALUATION, text.encode("utf-8", "surrogatepass"))

    def trace_request(self) -> TraceRequest | None:
        """Return the request for a trace, once; None if there is none."""
        request = self.path / run_files.TRACE_REQUEST
        try:
            content = json.loads(read_regular(request, _REQUEST_BYTES))
            found = TraceRequest(max(1, int(content["steps"])), str(content["id"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            found = None
        with contextlib.suppress(OSError):  # it may be a folder, or the disk read-only: the job goes on
            request.unlink(missing_ok=True)
        return found

    def event(self, what: str, **details: Any) -> None:
        """Append an event with its time to events.jsonl. Any thread may call. `ending` keeps the run's last event."""
        assert self._events is not None, "a run that was opened to read"
        self._events.append(what, **details)

    @property
    def ending(self) -> Mapping[str, Any] | None:
        """The event that ended the run, even if a full disk did not take it; None before."""
        return None if self._events is None else self._events.ending

    def is_there(self) -> bool:
        """Whether the directory is still at its path."""
        return self._events is None or self._events.is_there()

    def require_there(self) -> None:
        """Raise HostFailed if the directory was deleted or moved."""
        if not self.is_there():
            raise run_directory_gone(self.path)

    def save_model(
        self,
        spec: JobSpec,
        parameters: Mapping[str, Array] | CheckpointParameters,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        """Write model.safetensors (names and shapes of torch.nn.Sequential), model.json and the vocabulary's tokenizer,
        each whole or not at all. Raises OSError."""
        save_model(self.path, spec, parameters, vocabulary)

    def save_preprocessing(self, rules: Preprocessing) -> None:
        """Write preprocessing.json, whole or not at all. Raises OSError."""
        content = json.dumps(rules.document(), indent=2, ensure_ascii=False) + "\n"
        write_whole(self.path / run_files.PREPROCESSING, content.encode("utf-8", "surrogatepass"))

    def begin_trace(self) -> BinaryIO:
        """Open a file for a trace. After `show_trace` it is trace.json, even while it grows. Raises OSError."""
        return (self.path / run_files.unfinished(run_files.TRACE)).open("wb")

    def show_trace(self) -> None:
        """Replace trace.json by the file of `begin_trace`, which has a step by now. Raises OSError."""
        (self.path / run_files.unfinished(run_files.TRACE)).replace(self.path / run_files.TRACE)

    def close(self) -> None:
        """Close the files and unlock the directory. Raises nothing: errors of a full disk were raised by the writes."""
        for file in (self._metrics, self._accounts, self._events):
            if file is not None:
                with contextlib.suppress(OSError):
                    file.close()
        self._metrics = self._accounts = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def discard(self) -> None:
        """Remove the files of this run, which ended before its first step, so that the next run can use the folder."""
        lock, self._lock = self._lock, None
        self.close()
        own = [self.path / name for name in run_files.MADE_BEFORE_STEPS]
        for place in self._made:
            with contextlib.suppress(OSError):  # a folder with other files in it stays
                if place in own and not place.is_dir():
                    place.unlink(missing_ok=True)
                elif place in own:
                    shutil.rmtree(place)
                else:
                    place.rmdir()
        if lock is not None:
            os.close(lock)


def default_run_dir(spec: JobSpec) -> Path:
    """Return `runs/NAME-DATE-TIME`, with a number added if that exists."""
    base = Path("runs") / f"{spec.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, count = base, 1
    while path.exists():
        count += 1
        path = base.with_name(f"{base.name}-{count}")
    return path
