"""Links between the workers of one host: headers over a unix socket (SEQPACKET), payloads in shared memory.

Each direction of a link has a ring (`cluster/actors/shared_ring.py`), which its sender makes and passes to the receiver
over the socket. The memory has no name: it is gone when both processes are. The socket's file is needed only until all
workers are connected.

[Note: released room] A received array stays in the ring until the worker asks for it. Every header says up to which
position its sender has read the other ring; if it sends none for half a ring, it says so in a message of its own. A
sender without room asks for some. The receiver then copies what is parked out of the ring, so that a worker that waits
for an array never waits behind another. Two senders without room both take messages in while they wait.
"""

from __future__ import annotations

import math
import select
import socket
import struct
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

from cluster.actors.protocol import DTYPE_CODES, DTYPES, KIND_CODES, KINDS
from cluster.actors.shared_ring import Parked, RingReader, RingWriter
from stages.arrays import Array
from stages.channel import Tag

HEADER = struct.Struct("<qqqqqqqqqqcc")
"""Generation; round, stage, micro-batch; features, rows; start and end of the payload in the ring; -1, or the place of
the payload in its array, in bytes; released position of the other ring; kind, dtype."""
_RELEASED, _WANTS_ROOM = b"r", b"w"  # instead of a kind
_WHOLE = -1
_tag = partial(tuple.__new__, Tag)  # twice as quick as Tag's own
_RETRY_S = 0.005  # for a message that the socket had no room for


class Link:
    """A connected link to one worker. `sent` and `received` are its rings, None if the job never uses them."""

    def __init__(
        self, worker: int, connection: socket.socket, sent: RingWriter | None, received: RingReader | None
    ) -> None:
        connection.setblocking(False)
        self.worker, self.socket, self.sent, self.received = worker, connection, sent, received
        self.gone = False
        """Whether the worker has closed its end: nothing can be sent to it."""
        self.ended = False
        """Whether all that it sent has been received, too."""
        self.has_asked = False
        self.owes = False
        self.rest: np.ndarray[Any, np.dtype[np.uint8]] | None = None
        """What is still to be sent of an array that is larger than the ring."""
        self.whole: Array | None = None
        """An array that arrives in pieces."""

    def close(self) -> None:
        """Close the socket, and let the memory go."""
        self.gone = True
        self.socket.close()
        for ring in (self.sent, self.received):
            if ring is not None:
                ring.close()

    def post(self, message: bytes) -> bool:
        """Send a message if the socket has room; return whether it had. A worker that is gone never has."""
        if self.gone:
            return False
        try:
            self.socket.send(message)
        except BlockingIOError:
            return False
        except OSError:
            self.gone = True
            return False
        return True


class HostLinks:
    """A worker's links to other workers of its host. Puts arrays that arrive into `arrived`, some of them as Parked.
    One thread uses it."""

    def __init__(self, links: Iterable[Link], *, generation: int, arrived: dict[Tag, Any], wake: int) -> None:
        """`wake` is a descriptor that ends a wait if it can be read."""
        self._generation, self._arrived = generation, arrived
        self._links = {link.worker: link for link in links}
        self._by_descriptor = {link.socket.fileno(): link for link in self._links.values()}
        self._owing = False
        self._poller = select.poll()
        self._pollers: list[Any] = []
        self._wake = wake
        self._poller.register(wake, select.POLLIN)
        self.register(self._poller)

    @property
    def shared_bytes(self) -> int:
        """Bytes of the memory shared with other workers."""
        rings = (ring for link in self._links.values() for ring in (link.sent, link.received))
        return sum(ring.capacity for ring in rings if ring is not None)

    @property
    def gone(self) -> list[int]:
        """The workers that have closed their end."""
        return sorted(link.worker for link in self._links.values() if link.gone)

    def register(self, poller: Any) -> None:
        """Let `poller`, which has the methods of select.poll, wake up if a message comes."""
        self._pollers.append(poller)
        for descriptor in self._by_descriptor:
            poller.register(descriptor, select.POLLIN)

    def offer(self, worker: int, tag: Tag, array: Array) -> bool:
        """Send the array if there is room for it now; return whether there is. If not, offer the same array again."""
        link = self._links[worker]
        ring = link.sent
        assert ring is not None, f"the plan has no array from this worker for worker {worker}"
        n_bytes = array.nbytes
        if n_bytes > ring.capacity:
            return self._offer_pieces(link, ring, tag, array)
        place = ring.place(n_bytes) or self._place(link, ring, n_bytes)
        if place is None:
            return False
        ring.write(place[0], array)
        return self._post_header(link, ring, tag, array, place, _WHOLE)

    def _offer_pieces(self, link: Link, ring: RingWriter, tag: Tag, array: Array) -> bool:
        if link.rest is None:
            link.rest = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        while len(link.rest):
            piece = link.rest[: ring.piece]
            place = self._place(link, ring, len(piece))
            if place is None:
                return False
            ring.write(place[0], piece)
            if not self._post_header(link, ring, tag, array, place, array.nbytes - len(link.rest)):
                return False
            link.rest = link.rest[ring.piece :]
        link.rest = None
        return True

    def _post_header(
        self, link: Link, ring: RingWriter, tag: Tag, array: Array, place: tuple[int, int], at: int
    ) -> bool:
        read = link.received
        released = 0 if read is None else read.released
        features, rows = array.shape
        header = HEADER.pack(
            self._generation, tag.round, tag.stage, tag.micro_batch, features, rows, *place, at, released,
            KIND_CODES[tag.kind], DTYPE_CODES[array.dtype],
        )  # fmt: skip
        if not link.post(header):
            return False
        ring.written = place[1]
        if read is not None:
            read.told = released
        return True

    def _place(self, link: Link, ring: RingWriter, n_bytes: int) -> tuple[int, int] | None:
        """Return a free place. If there is none, see first what the receiver has said already, then ask it for room."""
        place = ring.place(n_bytes)
        while place is None and self._receive(link):
            place = ring.place(n_bytes)
        if place is None and not link.has_asked:
            link.has_asked = link.post(self._note(link, _WANTS_ROOM))
        return place

    def _tell_released(self, link: Link) -> None:
        link.owes = not link.post(self._note(link, _RELEASED)) and not link.gone
        self._owing |= link.owes

    def _note(self, link: Link, what: bytes) -> bytes:
        released = 0
        if link.received is not None:
            released = link.received.told = link.received.released
        return HEADER.pack(self._generation, *(0,) * 8, released, what, b" ")

    def take(self, wait_s: float = 0.0) -> bool:
        """Take in a message of each link that has one; wait up to `wait_s` for the first. Return whether one came."""
        if self._owing:
            self._owing = False
            for link in self._links.values():
                if link.owes:
                    self._tell_released(link)
        came = False
        for descriptor, _ in self._poller.poll(math.ceil(self.patience(wait_s) * 1000) if wait_s else 0):
            if descriptor != self._wake:
                self._receive(self._by_descriptor[descriptor])
                came = True
        return came

    def patience(self, wait_s: float) -> float:
        """Return how many of `wait_s` seconds may pass until the next `take`."""
        return min(wait_s, _RETRY_S) if self._owing else wait_s

    def _receive(self, link: Link) -> bool:
        """Take in one message if there is one; return whether there was."""
        if link.ended:
            return False
        try:
            message = link.socket.recv(HEADER.size)
        except (BlockingIOError, ConnectionResetError):  # after a reset, what came before it can still be read
            return False
        if not message:
            link.gone = link.ended = True
            for poller in self._pollers:
                poller.unregister(link.socket.fileno())
            return False
        self._take_message(link, message)
        return True

    def _take_message(self, link: Link, message: bytes) -> None:
        generation, rnd, stage, j, features, rows, start, end, at, released, kind, code = HEADER.unpack(message)
        if link.sent is not None and released > link.sent.released:
            link.sent.released, link.has_asked = released, False
        if kind == _RELEASED:
            link.has_asked = False
            return
        read = link.received
        assert read is not None, "who sends has a ring"
        if kind == _WANTS_ROOM:
            for parked in read.waiting():
                self._arrived[parked.tag] = read.take(parked)
            self._tell_released(link)
            return
        parked = read.park(_tag((rnd, stage, KINDS[kind], j)), start, end, (features, rows), DTYPES[code])
        if generation != self._generation:
            read.free(parked)
        elif at == _WHOLE:
            self._arrived[parked.tag] = parked
        else:
            self._take_piece(link, read, parked, at)
        if (read.released - read.told) * 2 >= read.capacity:
            self._tell_released(link)

    def _take_piece(self, link: Link, read: RingReader, parked: Parked, at: int) -> None:
        if at == 0:
            link.whole = np.empty(parked.shape, parked.dtype)
        assert link.whole is not None, "pieces come in order"
        flat = link.whole.reshape(-1).view(np.uint8)
        piece = flat[at : at + parked.end - parked.start]
        read.read_into(piece, parked.start)
        read.free(parked)
        if at + len(piece) == len(flat):
            self._arrived[parked.tag] = link.whole
            link.whole = None

    def fetch(self, parked: Parked) -> Array:
        """Return a copy of an array that is parked, and free its room."""
        read = parked.ring
        assert read is not None, "an array is fetched once"
        array = read.take(parked)
        if (read.released - read.told) * 2 >= read.capacity:
            self._tell_released(self._links[read.writer])
        return array

    def close(self) -> None:
        """Close every link. A second call does no harm."""
        for link in self._links.values():
            link.close()
