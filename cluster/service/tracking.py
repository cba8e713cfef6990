"""Closes a job's run at a tracker if the runner could not, because it was killed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from pathlib import Path

from cluster.trackers.tracker import Outcome
from coordinator import run_files
from coordinator.queue.job_states import State, Stopped, Succeeded

_DEADLINE_S = 60.0
_log = logging.getLogger(__name__)


def left_open(folder: Path) -> bool:
    """Whether a run at a tracker is still open, by the job's run directory."""
    return (folder / run_files.MLFLOW_OPEN).exists()


async def end_tracking(folder: Path, state: State) -> None:
    """End the tracker's run in the state in which the job ended. If that fails or takes longer than _DEADLINE_S, the
    run stays open and the log says so."""
    outcome: Outcome = "finished" if isinstance(state, Succeeded) else "failed"
    if isinstance(state, Stopped):
        outcome = "stopped"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cluster.trackers.closing", str(folder), outcome),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    output = b"it did not answer in time"
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DEADLINE_S):
                _, output = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if process.returncode != 0:
        last = (output.decode(errors="replace").strip().splitlines() or ["no reason was given"])[-1]
        _log.warning("job %s: its run in MLflow stays open: %s", folder.name, last)
