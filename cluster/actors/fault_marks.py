"""Marks of faults that have struck: a small file for each in the run directory, made by the worker before it does
anything. So a fault strikes once, although the process that it ends cannot remember it and its step is made again."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from cluster.checkpoints.folder import CheckpointFolder
from coordinator import run_files
from stages.orders import Fault

LOSES_A_WORKER = ("kill", "stop", "partition", "oom")
"""Kinds after which a worker is replaced."""


class Mark(NamedTuple):
    """A fault that has struck before `point` of step `step`. `time_s` is in seconds UTC; `detail` says what was done if
    `kind` does not."""

    id: str
    worker: int
    kind: str
    step: int
    point: str
    time_s: float
    detail: str = ""

    @property
    def loses_a_worker(self) -> bool:
        """Whether a worker is replaced after it."""
        return self.kind in LOSES_A_WORKER


def claim(run: Path, worker: int, fault: Fault, step: int, point: str, layers: Collection[str]) -> bool:
    """Make the mark of a fault in the run directory `run`; return False if it has struck as often as it must.

    `corrupt` damages a file of the checkpoint, if possible one named in `layers`, before the mark is complete. Raises
    OSError.
    """
    folder = run / run_files.FAULTS
    folder.mkdir(exist_ok=True)
    for count in range(fault.times):
        try:
            descriptor = os.open(folder / f"{worker}.{fault.name}.{count}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            continue
        detail = flip_a_bit(run / run_files.CHECKPOINTS, layers) if fault.what == "corrupt" else ""
        mark = Mark(fault.name, worker, fault.what, step, point, time.time(), detail)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(mark._asdict(), file)
        return True
    return False


def marks(run: Path, known: Collection[str] = ()) -> dict[str, Mark]:
    """Return the marks in a run directory by the names of their files, in order of time, without those that are
    `known`. One that is being written is left out."""
    found = {}
    for path in (run / run_files.FAULTS).glob("*"):
        if path.name in known:
            continue
        with contextlib.suppress(OSError, ValueError, TypeError):
            found[path.name] = Mark(**json.loads(path.read_text(encoding="utf-8")))
    return dict(sorted(found.items(), key=lambda item: item[1].time_s))


def flip_a_bit(checkpoints: Path, names: Collection[str]) -> str:
    """Flip a bit in a file of the newest whole checkpoint, and in the same file of one that is still being written, so
    that the damaged one is the newest. If possible this is a file in `names`. Return what was done."""
    whole = [CheckpointFolder(checkpoints).place(step) for step in CheckpointFolder(checkpoints).steps()[-1:]]
    flipped = []
    for folder in [*whole, *sorted(checkpoints.glob(".step-*"))]:
        files = sorted(folder.glob("layer-*"))
        for file in ([file for file in files if file.name in names] or files)[:1]:
            with contextlib.suppress(OSError, ValueError):  # it was deleted meanwhile, or is empty
                _flip(file)
                flipped.append(f"{folder.name}/{file.name}")
    return f"a bit was flipped in {' and in '.join(flipped)}" if flipped else "there was no checkpoint yet"


def _flip(path: Path) -> None:
    with path.open("r+b") as file:
        place = path.stat().st_size // 2
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1]))
