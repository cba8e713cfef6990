"""What faults of a worker process do outside of its stages: marks, links and checkpoints."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from cluster.actors.channel import WorkerChannel
from cluster.actors.checkpoint_files import claim_there
from cluster.actors.fault_marks import claim
from cluster.checkpoints.layer_files import LayerFiles, file_of
from stages.orders import Fault


class WorkerFaultTools:
    """See stages.faults.FaultTools. `checkpoints` is the folder of the run's checkpoints, `files` the actor on the host
    that has it if some workers are on others."""

    def __init__(
        self,
        worker: int,
        checkpoints: str | None,
        files: Any,
        *,
        channel: Callable[[], WorkerChannel | None],
        snapshots: Callable[[], LayerFiles | None],
        layers: Callable[[], Collection[str]],
    ) -> None:
        self._worker, self._files = worker, files
        self._run = None if checkpoints is None else Path(checkpoints).parent
        self._channel, self._snapshots, self._layers = channel, snapshots, layers

    def claim(self, fault: Fault, step: int, point: str) -> bool:
        """See FaultTools. Without a run directory it strikes in every process."""
        if self._run is None:
            return True
        names = [file_of(layer) for layer in self._layers()]
        if self._files is not None:
            return claim_there(self._files, self._worker, fault, step, point, names)
        return claim(self._run, self._worker, fault, step, point, names)

    def cut_links(self) -> None:
        """See FaultTools."""
        channel = self._channel()
        assert channel is not None, "a worker with orders has a channel"
        channel.cut()

    def fill_disk(self) -> None:
        """See FaultTools."""
        snapshots = self._snapshots()
        if snapshots is not None:
            snapshots.open_next_with(FullDisk)


class FullDisk:
    """A file on a disk that is full after the first part."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0) if path.parent.is_dir() else None

    def write(self, part: bytes | memoryview) -> None:
        """Write the part if it is the first one. Raises OSError."""
        if self._file is None or self._file.tell() > 0:
            self.finish()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._file.write(part)

    def finish(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
