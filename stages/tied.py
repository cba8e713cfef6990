"""The tied weights that a stage uses: a gradient for each use, and a copy of each weight that another stage owns."""

from __future__ import annotations

import numpy as np

from stages.arrays import Array, aligned_empty
from stages.init import draw_parameter, dtype_of
from stages.parameters import Parameters, Write
from stages.spec import ModelSpec


class TiedUses:
    """The uses of tied weights in operations `first` … `stop` − 1. `values[name]` is the weight that the use `name`
    reads: the owner's own array if the owner is in the same stage, else a copy. `gradients[name]` is the gradient of
    the use. See stages.network.Tie."""

    def __init__(self, model: ModelSpec, first: int, stop: int, own: Parameters) -> None:
        self._ties = [tie for tie in model.network.ties if first <= tie.user.index < stop]
        self._trained = [tie for tie in self._ties if tie.owner_name not in model.network.frozen]
        self._copies: dict[str, str] = {}
        self.values: dict[str, Array] = {}
        self.gradients: dict[str, Array] = {}
        for tie in self._ties:
            self.gradients[tie.name] = aligned_empty(tie.shape, dtype_of(model))
            self.gradients[tie.name][...] = 0
            if first <= tie.owner.index < stop:
                self.values[tie.name] = own.value(tie.owner_name)
                continue
            self.values[tie.name] = aligned_empty(tie.shape, dtype_of(model))
            self._copies[tie.name] = tie.owner_name
        self.draw(model.seed)

    def draw(self, seed: int) -> None:
        """Draw the copies as their owners draw the weights."""
        for tie in self._ties:
            if tie.name in self._copies:
                stream = np.random.default_rng([seed, 0, *tie.owner.path])
                draw_parameter(stream, self.values[tie.name], tie.owner.stds[0], 0.0)

    def fill(self, write: Write) -> None:
        """Write the copies with `write`, which gets the names of the owners."""
        for name, owner in self._copies.items():
            write(owner, self.values[name])

    def add_to(self, own: Parameters) -> None:
        """Add the gradient of each use to its owner's, in the order of the users.

        Used by the reference, where one stage has all owners; workers use TiedExchange.
        """
        for tie in self._trained:
            total = own.gradient(tie.owner_name)
            np.add(total, self.gradients[tie.name], out=total)

    @property
    def nbytes(self) -> tuple[int, int]:
        """Bytes of copies and of gradients."""
        copies = sum(self.values[name].nbytes for name in self._copies)
        return copies, sum(gradient.nbytes for gradient in self.gradients.values())
