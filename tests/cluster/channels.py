"""Pairs of connected channels in one process."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from cluster.actors.channel import WorkerChannel

HERE = "127.0.0.1"
ROOM = 2**20


class Hosts(NamedTuple):
    """The node of each worker, and whether it can share memory."""

    nodes: tuple[str, ...]
    shares_memory: tuple[bool, ...]


LINK = Hosts(("n", "n"), (True, True))
IPC = Hosts(("n", "n"), (False, False))
ONE_CANNOT = Hosts(("n", "n"), (True, False))
TCP = Hosts(("n", "m"), (True, True))


def open_channels(
    hosts: Hosts,
    *,
    generations: tuple[int, ...] = (1, 1, 1),
    timeout_s: float = 20.0,
    unattended_s: float = 20.0,
) -> list[WorkerChannel]:
    """Return channels that have admitted each other."""
    channels = [
        WorkerChannel(
            worker,
            node=node,
            host_ip=HERE,
            timeout_s=timeout_s,
            unattended_s=unattended_s,
            generation=generation,
            shares_memory=shares,
        )
        for worker, (node, shares, generation) in enumerate(zip(*hosts, generations, strict=False))
    ]
    for channel in channels:
        channel.admit([one.address for one in channels])
    return channels


def connect(channels: list[WorkerChannel], room: Mapping[int, int] | None = None, *, spin: bool = False) -> None:
    """Connect them, each in a thread of its own. Raises the first error."""
    addresses = [one.address for one in channels]
    room = dict.fromkeys(range(len(channels)), ROOM) if room is None else room
    with ThreadPoolExecutor(len(channels)) as threads:
        for done in [threads.submit(c.connect, addresses, room=room, spin=spin) for c in channels]:
            done.result(60)
