"""Decides when weight gradients are computed: a W does nothing until its group is complete, and groups are done in
ascending order (see stages.stage, [Note: ascending weight gradients]). Dry runs, predictions and traces use this."""

from __future__ import annotations


class WeightGroups:
    """The groups of one stage in one step: each has `group` neighbouring micro-batches, the last one perhaps fewer."""

    def __init__(self, n_micro_batches: int, group: int) -> None:
        self._n, self._group, self._next = n_micro_batches, group, 0
        self._marked: set[int] = set()

    @property
    def complete(self) -> bool:
        """Whether all products are done."""
        return self._next == self._n

    def is_next(self, micro_batch: int) -> bool:
        """Whether, with groups of one, the micro-batch's product is due as soon as it is marked."""
        return micro_batch == self._next

    def mark(self, micro_batch: int) -> range:
        """Perform the W of a micro-batch. Return the micro-batches whose products it computes, often none."""
        self._marked.add(micro_batch)
        begin = self._next
        while self._next < self._n:
            members = range(self._next, min(self._next + self._group, self._n))
            if not self._marked.issuperset(members):
                break
            self._next = members.stop
        return range(begin, self._next)
