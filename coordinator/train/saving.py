"""The port for checkpoints of a run: what the trainer asks and tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from stages.snapshots import Written


class Checkpointing(Protocol):
    """Decides when the workers save their state, and makes their files a checkpoint."""

    def due(self, step: int) -> bool:
        """Whether a checkpoint is saved after this update. If so, its folder is there for the workers."""

    def at_end(self, step: int, *, owes_evaluation: bool) -> bool:
        """Like `due`, for a run that ends after this update, and perhaps before its evaluation."""

    @property
    def pending(self) -> bool:
        """Whether workers are still writing."""

    def copied(self, step: int, seconds: Sequence[float]) -> None:
        """Take in how long each worker needed to copy its state."""

    def written(self, outcomes: Sequence[Written | None]) -> None:
        """Take in what each worker has written since the last call."""
