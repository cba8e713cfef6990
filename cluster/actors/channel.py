"""A worker's channel to all other workers: shared memory on its own host, ZeroMQ to other hosts.

Without shared memory (another system than Linux, or a kernel that forbids it) ZeroMQ serves its own host too.

[Note: generations] If a worker was lost, all workers open new channels, with a higher generation, and close the old
ones. So no array of an abandoned step can enter: its socket is closed, its sender's secret is not expected, and its
header has another generation.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

import zmq

from cluster.actors.clocks import clock_name
from cluster.actors.cut_links import CutLinks
from cluster.actors.host_links import HostLinks
from cluster.actors.link_setup import LinkSetup, can_link
from cluster.actors.private_folders import PrivateFolder, make_private_folder
from cluster.actors.protocol import WorkerAddress
from cluster.actors.shared_ring import Parked
from cluster.actors.spinning import SPIN_S, Spinning
from cluster.actors.tcp_links import TcpLinks
from cluster.actors.zmq_links import ZmqLinks
from stages.arrays import Array
from stages.channel import Attendance, ChannelClosed, ReceiveTimeout, Tag
from stages.progress import LinkSeen

_FULL_WAIT_S = 0.005  # between two tries to send
_now = time.perf_counter


class WorkerChannel:
    """A worker's end of the channel. One thread uses it. `timeout_s` is how long connecting may take; `unattended_s` is
    how long a receive or a blocked send may take while nobody attends (see Attendance), by default `timeout_s`.

    `generation`: see `generation_of`; a message of another one is dropped. `shares_memory` is whether this system can
    link workers by shared memory; None finds out.
    """

    def __init__(
        self,
        worker: int,
        *,
        node: str,
        host_ip: str,
        timeout_s: float,
        unattended_s: float | None = None,
        generation: int = 1,
        shares_memory: bool | None = None,
    ) -> None:
        self._worker, self._timeout_s, self._generation = worker, timeout_s, generation
        self.attendance = Attendance(timeout_s if unattended_s is None else unattended_s)
        self._arrived: dict[Tag, Any] = {}  # an Array, or Parked
        self._given_up = False
        self._wake = socket.socketpair()
        self._folder: PrivateFolder | None = make_private_folder()
        folder = self._folder.path
        self._zmq: ZmqLinks | None = ZmqLinks(
            worker, folder, node=node, host_ip=host_ip, generation=generation, arrived=self._arrived
        )
        self._setup: LinkSetup | None = None
        if can_link() if shares_memory is None else shares_memory:
            self._setup = LinkSetup(worker, folder, generation=generation)
        self._links: HostLinks | None = None
        self._routes: dict[int, HostLinks | ZmqLinks] = {}
        self._tcp_links = TcpLinks({})
        self._cut_off: list[HostLinks | ZmqLinks] = []
        self._poller = zmq.Poller()
        self._spinning = Spinning(wanted=False)
        self.address = WorkerAddress(
            worker=worker,
            host=os.uname().nodename,
            node=node,
            pid=os.getpid(),
            unix=self._zmq.unix,
            tcp=self._zmq.tcp,
            link="" if self._setup is None else self._setup.path,
            public_key=self._zmq.public_key,
            secret=b"" if self._setup is None else self._setup.secret,
            clock=clock_name(),
            cores=len(os.sched_getaffinity(0)),
        )

    def _is_linked(self, address: WorkerAddress) -> bool:
        return self._setup is not None and address.link != "" and address.node == self.address.node

    def admit(self, addresses: Sequence[WorkerAddress]) -> None:
        """Allow connections of these workers only. All workers do this before any of them connects, because a rejected
        worker does not try again."""
        others = [address for address in addresses if address.worker != self._worker]
        assert self._zmq is not None, "closed at the end only, or here"
        if all(map(self._is_linked, others)):
            self._zmq.close()
            self._zmq = None
        else:
            self._zmq.admit([address for address in others if not self._is_linked(address)])

    def connect(self, addresses: Sequence[WorkerAddress], *, room: Mapping[int, int], spin: bool = False) -> None:
        """Connect to the other workers, and wait for their greetings. Raises ReceiveTimeout, which names workers that
        sent none.

        `room` has the bytes of shared memory for what is sent to each worker; a worker without an entry is sent
        nothing. `spin` is whether to spin, see [Note: spinning].
        """
        others = [address for address in addresses if address.worker != self._worker]
        linked = [address for address in others if self._is_linked(address)]
        rest = [address for address in others if not self._is_linked(address)]
        deadline = time.monotonic() + self._timeout_s
        missing: set[int] = set()
        if self._setup is not None:
            links = self._setup.connect(linked, room, deadline, self._is_given_up)
            self._setup = None
            self._links = HostLinks(
                links, generation=self._generation, arrived=self._arrived, wake=self._wake[0].fileno()
            )
            self._routes = {link.worker: self._links for link in links}
            missing = {address.worker for address in linked} - self._routes.keys()
        if self._zmq is not None:
            missing.update(self._zmq.connect(rest, deadline, self._is_given_up))
            self._routes |= {address.worker: self._zmq for address in rest}
            self._tcp_links = TcpLinks(
                {a.worker: a.tcp for a in rest if a.node != self.address.node and a.worker in room}
            )
            self._zmq.register(self._poller)
            self._poller.register(self._wake[0], zmq.POLLIN)
            if self._links is not None:
                self._links.register(self._poller)
        if self._given_up:
            raise ChannelClosed
        if missing:
            places = ", ".join(f"worker {a.worker} on {a.host}" for a in others if a.worker in missing)
            raise ReceiveTimeout(f"no connection with {places} after {self._timeout_s:g} s")
        self._spinning = Spinning(wanted=spin)

    @property
    def shared_bytes(self) -> int:
        """Bytes of the memory shared with other workers of the host."""
        return 0 if self._links is None else self._links.shared_bytes

    def links_seen(self) -> tuple[LinkSeen, ...]:
        """Return the state of the links to workers of other hosts. Any thread may call this."""
        return self._tcp_links.seen()

    def seal(self) -> None:
        """Remove the sockets' files, after all workers have connected."""
        if self._folder is not None:
            self._folder.remove()
            self._folder = None

    def give_up(self) -> None:
        """End every wait of the worker, now and later, with ChannelClosed. Any thread may call this."""
        self._given_up = True
        with contextlib.suppress(OSError):  # it was closed meanwhile
            self._wake[1].send(b"!")

    def cut(self) -> None:
        """Lose every array that is sent or comes from now on, as if the network were cut. The worker's thread calls."""
        nowhere = CutLinks(self._wake[0].fileno())
        self._cut_off += [part for part in (self._links, self._zmq) if part is not None]
        self._routes = dict.fromkeys(self._routes, nowhere)
        self._links, self._zmq = nowhere, None
        self._arrived.clear()

    def _is_given_up(self) -> bool:
        return self._given_up

    def send(self, worker: int, tag: Tag, array: Array) -> None:
        """See Channel. While the link has no room, this waits and receives, so that two full links do not deadlock."""
        links = self._routes[worker]
        if self._given_up:
            raise ChannelClosed
        if links.offer(worker, tag, array):
            return
        began = self.attendance.now()
        while not links.offer(worker, tag, array):
            if self._given_up:
                raise ChannelClosed
            if self.attendance.left(began) <= 0:
                raise ReceiveTimeout(
                    f"worker {worker} received nothing for {self.attendance.limit_s:g} s (sending the {tag})"
                    f"{self._gone()}"
                )
            self._take_in(_FULL_WAIT_S)

    def receive(self, tag: Tag) -> Array:
        """See Channel."""
        arrived = self._arrived
        if tag not in arrived:
            self._await(tag)
        found = arrived.pop(tag)
        if type(found) is Parked:
            assert self._links is not None, "only they park arrays"
            found = self._links.fetch(found)
        array: Array = found
        return array

    def _await(self, tag: Tag) -> None:
        arrived = self._arrived
        if self._spin(tag):
            return
        began = self.attendance.now()
        while tag not in arrived:
            if self._given_up:
                raise ChannelClosed
            left = self.attendance.left(began)
            if left <= 0:
                raise ReceiveTimeout(f"waited {self.attendance.limit_s:g} s for the {tag}{self._gone()}")
            self._take_in(left)

    def _spin(self, tag: Tag) -> bool:
        """Look for the array for a short while; return whether it came. See [Note: spinning]."""
        links, arrived, now = self._links, self._arrived, _now()
        if links is None or not self._spinning.allowed(now):
            return False
        until = now + SPIN_S
        while now < until:
            if links.take() and tag in arrived:
                return True
            now = _now()
        return False

    def _take_in(self, wait_s: float) -> None:
        """Take in messages that have come; wait up to `wait_s` for the first."""
        links = self._links
        if self._zmq is None:
            if links is not None:
                links.take(wait_s)
        elif not (self._zmq.take() or (links is not None and links.take())):
            patience = wait_s if links is None else links.patience(wait_s)
            self._poller.poll(math.ceil(patience * 1000))

    def _gone(self) -> str:
        """Return the workers that have closed their links, for an error."""
        gone = [] if self._links is None else self._links.gone
        return "".join(f"; worker {worker} has closed its link" for worker in gone)

    def close(self) -> None:
        """Close every socket, and remove their files if they are still there. A second call does no harm."""
        self.seal()
        self._arrived.clear()  # what is parked holds memory of the links
        for part in (self._setup, self._links, self._zmq, *self._cut_off, *self._wake):
            if part is not None:
                part.close()
