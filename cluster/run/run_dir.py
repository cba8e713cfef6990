"""What a job leaves on disk: one folder, readable without this project."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO

import orjson
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cluster.data.text import Vocabulary
from cluster.run.earlier_run import lock_folder, make_room
from cluster.run.event_log import EventLog
from cluster.run.run_errors import os_error_of, run_directory_gone
from coordinator import run_files
from coordinator.job.regular_files import read_regular
from coordinator.job.spec import JobSpec, load_job, parse_job
from stages.arrays import Array
from stages.errors import HostFailed, InvalidData, InvalidJob, UserMistake

MODEL_FORMAT = "pipetrain.model/1"


_REQUEST_BYTES = 10_000


class TraceRequest(NamedTuple):
    """What the file contains by which a job is asked for a trace, put in place by rename. `id` comes back in the event
    that says what became of it."""

    steps: int
    id: str = ""


class RunDir:
    """The run directory of one job: opened empty by `create`, again by `reopen`, or to be read by `open_run`.

    `attempt` stands in every event of a job that may have more than one.
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
        """The last line of accounts.jsonl that was appended here."""

    @property
    def attempt(self) -> int:
        """The attempt that it is opened for, from 1."""
        return self._stamp.get("attempt", 1)

    @staticmethod
    def create(
        path: Path, spec: JobSpec, *, overwrite: bool = False, notify: Callable[[str], None] = lambda text: None
    ) -> RunDir:
        """A new run directory with its job.yaml, which no other command can use until it is closed.

        An earlier run that is there is removed if it ended before its first step, or if `overwrite` is set; `notify` is
        called with what is removed. Raises UserMistake if another run stays there, or a command is training into it.
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
            run_dir.discard()  # lest it stands in the way when there is room
            reason = (error.strerror or type(error).__name__).lower()
            raise UserMistake(f"{path}: cannot be written as a run directory: {reason}") from None

    @staticmethod
    def reopen(path: Path, spec: JobSpec | None, attempt: int) -> RunDir:
        """The run directory of a job of the service, for one attempt; without a job.yaml where there is no spec. Raises
        HostFailed where it cannot be written."""
        try:
            return RunDir(path, attempt)._open(spec)
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
            raise HostFailed(f"{path}: the run directory cannot be written: {reason}") from None

    def _open(self, spec: JobSpec | None) -> RunDir:
        own = [self.path / name for name in run_files.MADE_BEFORE_STEPS]
        self._made = [*(place for place in own if not place.exists()), *self._made]
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._metrics = (self.path / run_files.METRICS).open("a", buffering=1, encoding="utf-8")
            self._accounts = (self.path / run_files.ACCOUNTS).open("ab", buffering=0)
            self._events = EventLog(self.path, self._stamp)
            if spec is not None:  # last: a folder with a job file and no log is no run directory, see earlier_run.py
                self._write(run_files.JOB, spec.to_yaml().encode())
        except OSError:
            self.close()
            raise
        return self

    def metric(self, row: Mapping[str, Any]) -> None:
        """Append a row to metrics.jsonl."""
        assert self._metrics is not None, "a run that was opened to read"
        self._metrics.write(json.dumps(row, allow_nan=False) + "\n")

    def account(self, line: Mapping[str, Any]) -> None:
        """Append a step's line to accounts.jsonl."""
        assert self._accounts is not None, "a run that was opened to read"
        self._accounts.write(orjson.dumps(line) + b"\n")
        self.last_account = line

    def timeline(self, content: Mapping[str, Any]) -> None:
        """Replace timeline.json. Not flushed to disk: it is for who looks now."""
        temporary = self.path / run_files.unfinished(run_files.TIMELINE)
        temporary.write_bytes(orjson.dumps({"attempt": self.attempt, **content}))
        temporary.replace(self.path / run_files.TIMELINE)

    def trace_request(self) -> TraceRequest | None:
        """What somebody wants traced from now on, told once; None where nobody asked."""
        request = self.path / run_files.TRACE_REQUEST
        try:
            content = json.loads(read_regular(request, _REQUEST_BYTES))
            found = TraceRequest(max(1, int(content["steps"])), str(content["id"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            found = None
        with contextlib.suppress(OSError):  # a folder of that name, or a disk that became read-only: the job goes on
            request.unlink(missing_ok=True)
        return found

    def event(self, what: str, **details: Any) -> None:
        """Append an event with its time to events.jsonl. Any thread may. How a run ended is kept in `ending` too."""
        assert self._events is not None, "a run that was opened to read"
        self._events.append(what, **details)

    @property
    def ending(self) -> Mapping[str, Any] | None:
        """The event that says how the run ended, although the disk was full; None before."""
        return None if self._events is None else self._events.ending

    def is_there(self) -> bool:
        """Whether it is still where it was made; what is written elsewhere, nobody finds."""
        return self._events is None or self._events.is_there()

    def require_there(self) -> None:
        """Raise HostFailed where it was deleted or moved."""
        if not self.is_there():
            raise run_directory_gone(self.path)

    def save_model(
        self,
        spec: JobSpec,
        parameters: Mapping[str, Array],
        columns: Sequence[str] | None,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        """Write model.safetensors (names and shapes of torch.nn.Sequential), model.json and the vocabulary's tokenizer,
        each whole or not."""
        temporary = self.path / run_files.unfinished(run_files.MODEL)
        try:
            save_file(dict(parameters), temporary, metadata={"format": MODEL_FORMAT})
        except SafetensorError as error:
            temporary.unlink(missing_ok=True)
            raise os_error_of(str(error), temporary) from None
        _replace(temporary, self.path / run_files.MODEL)
        if vocabulary is not None and vocabulary.tokenizer:
            self._write(run_files.TOKENIZER, vocabulary.tokenizer.encode())
        described = _describe(spec, columns, vocabulary)
        self._write(run_files.MODEL_LAYERS, (json.dumps(described, indent=2) + "\n").encode())

    def begin_trace(self) -> BinaryIO:
        """A file for a trace, which is trace.json from `show_trace` on, while it grows. Raises OSError."""
        return (self.path / run_files.unfinished(run_files.TRACE)).open("wb")

    def show_trace(self) -> None:
        """Put the trace that was begun in the place of the last one: there is something in it now. Raises OSError."""
        (self.path / run_files.unfinished(run_files.TRACE)).replace(self.path / run_files.TRACE)

    def close(self) -> None:
        """Close the logs. Raises nothing: what a full disk did not take was told when it was written."""
        for file in (self._metrics, self._accounts, self._events):
            if file is not None:
                with contextlib.suppress(OSError):
                    file.close()
        self._metrics = self._accounts = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def discard(self) -> None:
        """Remove what this run made: it ended before its first step, and shall not stand in the way of the next."""
        lock, self._lock = self._lock, None
        self.close()
        own = [self.path / name for name in run_files.MADE_BEFORE_STEPS]
        for place in self._made:
            with contextlib.suppress(OSError):  # what others put there stays, and with it the folder
                if place in own and not place.is_dir():
                    place.unlink(missing_ok=True)
                elif place in own:
                    shutil.rmtree(place)
                else:
                    place.rmdir()
        if lock is not None:
            os.close(lock)

    def _write(self, name: str, content: bytes) -> None:
        temporary = self.path / run_files.unfinished(name)
        try:
            temporary.write_bytes(content)
            _replace(temporary, self.path / name)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def default_run_dir(spec: JobSpec) -> Path:
    """`runs/NAME-DATE-TIME`, not yet taken."""
    base = Path("runs") / f"{spec.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, count = base, 1
    while path.exists():
        count += 1
        path = base.with_name(f"{base.name}-{count}")
    return path


@dataclass(frozen=True)
class FinishedRun:
    """A trained run, read back. Weights stay on disk until `parameter` asks for one."""

    spec: JobSpec
    columns: tuple[str, ...] | None
    weights: Path
    vocabulary: Vocabulary | None = None
    """What its tokens stand for; None for a network of numbers."""

    def parameter(self, name: str) -> Array:
        """One parameter, by its name in model.safetensors. Raises InvalidData for a file that does not hold it."""
        try:
            with safe_open(self.weights, framework="numpy") as file:
                array: Array = file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise InvalidData(f"{self.weights}: {name} cannot be read: {error}") from None
        return array


def open_run(path: Path) -> FinishedRun:
    """A run directory with a trained model. Raises InvalidData where `path` is not one."""
    for name in run_files.MODEL_FILES:
        if not (path / name).exists():
            raise InvalidData(f"{path}: has no {name}, so it is not the run directory of a finished job")
    try:
        spec = load_job(path / run_files.JOB)
        layers = json.loads((path / run_files.MODEL_LAYERS).read_text(encoding="utf-8"))
        columns, told = layers.get("columns"), layers.get("vocabulary")
        vocabulary = None if told is None else Vocabulary.from_document(told, path)
        if not spec.is_resolved:  # what follows from the data is known by now
            spec = parse_job({**spec.document(), "model": layers["model"]})
    except InvalidJob as error:
        raise InvalidData(f"{path / run_files.JOB}: {error.problems[0]}") from None
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise InvalidData(f"{path / run_files.MODEL_LAYERS}: cannot be read: {error}") from None
    return FinishedRun(spec, None if columns is None else tuple(columns), path / run_files.MODEL, vocabulary)


def _describe(spec: JobSpec, columns: Sequence[str] | None, vocabulary: Vocabulary | None) -> dict[str, Any]:
    model = spec.model_spec()
    layers = [
        {"index": op.index, "kind": op.kind, "in": op.layer.shape_in.numbers, "out": op.layer.shape_out.numbers}
        | {"path": list(op.path)}
        for op in model.network.ops
    ]
    return {
        "format": MODEL_FORMAT,
        "name": spec.name,
        "input": list(model.input_shape),
        "precision": model.precision,
        "loss": model.loss,
        "layers": layers,
        "model": {key: value for key, value in spec.document()["model"].items() if key != "weights"},
        "columns": None if columns is None else list(columns),
        "vocabulary": None if vocabulary is None else vocabulary.document(),
    }


def _replace(temporary: Path, final: Path) -> None:
    """Flush to disk, then put in place: a reader sees the old file or the new one, never a part."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(final)
