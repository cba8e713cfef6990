"""Decides whether a new run may replace an earlier one in its folder, and removes the earlier one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cluster.checkpoints.folder import CheckpointFolder
from cluster.run.event_log import ENDINGS
from coordinator import run_files
from coordinator.checkpoints.position import Position
from stages.errors import UserMistake

_WAIT = "stop it, or wait until it has ended; --run-dir NEW goes on in another folder"
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF, errno.ENOSYS)  # raised by file systems without locks


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """A run that a folder holds. `rows`: it made a step or an evaluation. `model`: it saved a model. `entries`: the
    names of its files and folders."""

    folder: Path
    rows: bool
    model: bool
    entries: tuple[str, ...]

    @property
    def left_nothing(self) -> bool:
        """Whether the run made neither a step nor an evaluation nor a model."""
        return not (self.rows or self.model)

    def remove(self) -> None:
        """Remove the files that the run made; all other files stay. Raises OSError."""
        hidden = (run_files.RESERVE, run_files.TENSORBOARD_CLAIM, run_files.MLFLOW_RUN)
        for name in (*self.entries, *hidden, *map(run_files.unfinished, run_files.MADE)):
            place = self.folder / name
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            else:
                place.unlink(missing_ok=True)


def earlier_run(folder: Path) -> EarlierRun | None:
    """Return the run in a run directory; None if the folder is not one."""
    if not all((folder / name).is_file() for name in run_files.MARKS):
        return None
    metrics = folder / run_files.METRICS
    return EarlierRun(
        folder,
        rows=metrics.exists() and metrics.stat().st_size > 0,
        model=(folder / run_files.MODEL).exists(),
        entries=tuple(name for name in run_files.MADE if os.path.lexists(folder / name)),
    )


def make_room(folder: Path, *, overwrite: bool, notify: Callable[[str], None]) -> None:
    """Remove an earlier run from the folder if it left nothing, or if `overwrite` is set.

    `notify` is called with a line that says what is removed.

    Raises OSError, and UserMistake if the folder holds a run with results or, with `overwrite`, anything but a run.
    """
    found = earlier_run(folder)
    if found is None:
        _require_no_other(folder, overwrite=overwrite)
        return
    if not (found.left_nothing or overwrite):
        raise UserMistake(f"{folder}: holds a run already; choose another --run-dir, or let --overwrite remove it")
    if overwrite:
        notify(f"{folder}: removing the run that is there: {', '.join(found.entries)}")
    else:
        notify(f"{folder}: held a run that ended before its first step; using the folder again")
    found.remove()


def cut_rows(folder: Path, position: Position) -> None:
    """Remove the rows and the accounts of later steps, and the row that is not complete. Each file is replaced whole.
    Raises OSError."""
    for name in (run_files.METRICS, run_files.ACCOUNTS):
        path = folder / name
        if not path.exists():
            continue
        kept = rows_until(path, position)
        temporary = folder / run_files.unfinished(name)
        with temporary.open("wb") as file:
            file.writelines(kept)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def rows_until(path: Path, position: Position) -> list[bytes]:
    """Return the lines of a file of rows or accounts that stay. Raises OSError."""
    return [line for line in path.read_bytes().splitlines(keepends=True) if stays_until(line, position)]


def last_step(path: Path) -> int:
    """Return the last step of a file of rows; 0 if it has none. Raises OSError."""
    for line in reversed(path.read_bytes().splitlines()):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return int(json.loads(line)["step"])
    return 0


def remove_later(folder: Path, position: Position) -> None:
    """Remove the checkpoints of later steps, and the model, which belongs to an end that is none any more."""
    checkpoints = CheckpointFolder(folder / run_files.CHECKPOINTS)
    for step in checkpoints.steps():
        if step > position.step:
            checkpoints.delete(step)
    for name in (run_files.MODEL, run_files.MODEL_LAYERS):
        (folder / name).unlink(missing_ok=True)


def stays_until(line: bytes, position: Position) -> bool:
    """Whether the line of metrics or accounts is of a step before the position. A line that a crash has cut off is
    not."""
    try:
        row = json.loads(line)
        step, kind = int(row["step"]), row.get("kind")
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    if kind == "eval":
        return step < position.step or (step == position.step and not position.owes_evaluation)
    return step <= (position.step_of_last_row if kind == "step" else position.step)


def _require_no_other(folder: Path, *, overwrite: bool) -> None:
    """Raise UserMistake if the folder has content that is not a run and cannot be replaced."""
    if (folder / run_files.JOB).exists():
        raise UserMistake(
            f"{folder}: has a job.yaml but is not a run directory, so nothing in it is replaced; choose another "
            "--run-dir"
        )
    content = sorted(entry.name for entry in folder.iterdir()) if overwrite and folder.is_dir() else []
    if content:
        raise UserMistake(
            f"{folder}: is not a run directory (it has {content[0]}), and --overwrite removes nothing else; "
            "choose another --run-dir"
        )


def require_not_in_use(folder: Path) -> None:
    """Raise UserMistake if another command, or a job of the service, is training into the folder."""
    os.close(lock_folder(folder, _WAIT))
    if _belongs_to_a_job_under_way(folder):
        raise UserMistake(f"{folder}: a job of the service is training into it; {_WAIT}")


def _belongs_to_a_job_under_way(folder: Path) -> bool:
    """Whether the last event is of a job of the service that has not ended. A runner does not lock its folder."""
    try:
        last = json.loads((folder / run_files.EVENTS).read_bytes().splitlines()[-1])
        return "attempt" in last and last["event"] not in ENDINGS
    except (OSError, ValueError, LookupError, TypeError):
        return False


def lock_folder(folder: Path, advice: str = "choose another --run-dir") -> int:
    """Lock the folder, so that no other command trains into it, until the returned descriptor is closed or the process
    ends.

    Raises UserMistake, with the advice, if another command holds the lock.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserMistake(f"{folder}: another command is training into it; {advice}") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            os.close(descriptor)
            raise
    return descriptor
