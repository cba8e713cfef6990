"""Keeps a tied weight the same in all stages that use it: gradients go to its owner, the new value comes back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from stages.actions import Kind
from stages.arrays import Array
from stages.ledger import SEND, UPDATE, WAIT_DRAIN, WAIT_WARMUP, WEIGHT_GRADIENT, Ledger
from stages.orders import WorkerSetup
from stages.stage import Stage
from stages.trained import stage_of


class Carrier(Protocol):
    """Carries arrays to a stage, whichever worker holds it."""

    def send(self, stage: int, kind: Kind, micro_batch: int, array: Array) -> None:
        """Send `array` to `stage`."""

    def receive(self, stage: int, kind: Kind, micro_batch: int, sender: int | None = None) -> Array:
        """Return the array that worker `sender` sent to `stage`; None means the neighbouring stage's worker."""


class TiedExchange:
    """One worker's part of the exchange; see stages.network.Tie. Every worker calls both methods at the same points of
    a step."""

    def __init__(self, setup: WorkerSetup, stages: Mapping[int, Stage], ledger: Ledger, carrier: Carrier) -> None:
        ties, bounds = setup.model.network.trained_ties, setup.bounds
        self._ties = [(tie, stage_of(tie.user.index, bounds), stage_of(tie.owner.index, bounds)) for tie in ties]
        self._stages, self._placement, self._ledger, self._carrier = stages, setup.placement, ledger, carrier

    def bring_gradients_home(self) -> None:
        """Add the gradients of all uses of a weight to its owner's, in the order of the users."""
        for tie, user, owner in self._ties:
            if user in self._stages and owner not in self._stages:
                gradient = self._stages[user].uses.gradients[tie.name]
                # the kinds are only tags: a lane sends no array of BACKWARD_WEIGHT or BACKWARD
                self._carrier.send(owner, Kind.BACKWARD_WEIGHT, tie.user.index, gradient)
                self._ledger.book(user, SEND)
        for tie, user, owner in self._ties:
            if owner in self._stages:
                if user in self._stages:
                    gradient = self._stages[user].uses.gradients[tie.name]
                else:
                    sender = self._placement[user]
                    gradient = self._carrier.receive(owner, Kind.BACKWARD_WEIGHT, tie.user.index, sender)
                    self._ledger.book(owner, WAIT_DRAIN)
                total = self._stages[owner].parameters.gradient(tie.owner_name)
                np.add(total, gradient, out=total)
                self._ledger.book(owner, WEIGHT_GRADIENT)

    def bring_values_back(self) -> None:
        """After the update, bring the owner's value to the other stages that use it."""
        apart = [tie for tie in self._ties if tie[1] != tie[2]]
        for tie, user, owner in apart:
            if owner in self._stages and user not in self._stages:
                value = self._stages[owner].parameters.value(tie.owner_name)
                self._carrier.send(user, Kind.BACKWARD, tie.user.index, value)
                self._ledger.book(owner, SEND)
        for tie, user, owner in apart:
            if user in self._stages:
                if owner in self._stages:
                    value = self._stages[owner].parameters.value(tie.owner_name)
                else:
                    value = self._carrier.receive(user, Kind.BACKWARD, tie.user.index, self._placement[owner])
                    self._ledger.book(user, WAIT_WARMUP)
                np.copyto(self._stages[user].uses.values[tie.name], value)
                self._ledger.book(user, UPDATE)
