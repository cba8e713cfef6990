"""Carries the chunks of an evaluation from stage to stage, so that no stage gets far ahead of the next."""

from __future__ import annotations

import numpy as np

from stages.actions import Kind
from stages.arrays import Array
from stages.orders import WorkerSetup
from stages.tied_exchange import Carrier

CHUNKS_AHEAD = 4
"""How many evaluation chunks a stage may be ahead of the next: more hide the time of messages, but take memory."""


class Chunks:
    """One worker's part: it sends chunks on, and waits until another worker has taken them."""

    def __init__(self, setup: WorkerSetup, carrier: Carrier) -> None:
        self._placement, self._worker, self._carrier = setup.placement, setup.worker, carrier

    def send(self, s: int, j: int, y: Array) -> None:
        """Send chunk `j` from stage `s` on, at most CHUNKS_AHEAD chunks ahead of the receiving worker."""
        if j >= CHUNKS_AHEAD:
            self.await_taken(s, j - CHUNKS_AHEAD)
        self._carrier.send(s + 1, Kind.FORWARD, j, y)

    def receive(self, s: int, j: int) -> Array:
        """Return chunk `j` for stage `s`, and tell its sender that it is taken."""
        x = self._carrier.receive(s, Kind.FORWARD, j)
        if self._placement[s - 1] != self._worker:
            self._carrier.send(s - 1, Kind.BACKWARD_INPUT, j, np.zeros((1, 1), dtype=x.dtype))
        return x

    def await_taken(self, s: int, j: int) -> None:
        """Wait until the worker of the next stage has taken chunk `j`."""
        if s < len(self._placement) - 1 and self._placement[s + 1] != self._worker:
            self._carrier.receive(s, Kind.BACKWARD_INPUT, j)
