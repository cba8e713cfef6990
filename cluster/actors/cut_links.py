"""Links that are cut on purpose, as if the network were."""

from __future__ import annotations

from cluster.actors.host_links import HostLinks
from stages.arrays import Array
from stages.channel import Tag


class CutLinks(HostLinks):
    """Links to nobody: what is sent is lost, and nothing comes. `wake` is a descriptor that ends a wait."""

    def __init__(self, wake: int) -> None:
        super().__init__((), generation=0, arrived={}, wake=wake)

    def offer(self, worker: int, tag: Tag, array: Array) -> bool:
        """Take the array, and lose it."""
        return True
