"""Connects the workers of one host: who may connect, and how they pass each other the memory of their links.

A socket in the private folder takes connections until all workers are connected. A worker talks only to a process of
its own user that shows the secret of a worker of the same run and attempt; the coordinator has given all of them the
addresses with the secrets. Each end says hello: its secret, its number, the attempt, and the memfd that it will write.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from cluster.actors.host_links import Link
from cluster.actors.protocol import WorkerAddress
from cluster.actors.shared_ring import RingReader, RingWriter, can_share_memory

_SECRET_BYTES = 32
_HELLO = struct.Struct(f"<{_SECRET_BYTES}sqqq")
"""Secret, worker, generation, bytes of the memory that comes with it (0: none)."""
_CREDENTIALS = struct.Struct("3i")  # process, user, group: unix(7)
_BACKLOG = 1024
_LOOK_EVERY_S = 0.2  # whether the wait for the others is given up


def can_link() -> bool:
    """Whether this system has what links need: memory that is passed over a socket, and the peer's user."""
    return all(hasattr(socket, name) for name in ("SOCK_SEQPACKET", "SO_PEERCRED", "send_fds")) and can_share_memory()


class LinkSetup:
    """Opens the socket `path` in `folder`, and makes the links of worker `worker`."""

    def __init__(self, worker: int, folder: Path, *, generation: int) -> None:
        self._worker, self._generation = worker, generation
        self.path, self.secret = str(folder / "link"), secrets.token_bytes(_SECRET_BYTES)
        self._listener = _socket()
        try:
            self._listener.bind(self.path)
            self._listener.listen(_BACKLOG)
            self._listener.setblocking(False)
        except BaseException:
            self._listener.close()
            raise

    def connect(
        self,
        addresses: Iterable[WorkerAddress],
        room: Mapping[int, int],
        deadline: float,
        given_up: Callable[[], bool] = lambda: False,
    ) -> list[Link]:
        """Return links to these workers, fewer if some have not connected before `deadline`, or until `given_up`.
        `room` has the bytes of memory for what is sent to each of them."""
        missing = {address.worker: address for address in addresses}
        links: list[Link] = []
        greeted: set[int] = set()
        waiting: dict[int, tuple[socket.socket, RingWriter | None]] = {}
        """Connections by their descriptor, with the memory of those that already got a hello."""
        poller = select.poll()
        poller.register(self._listener, select.POLLIN)

        def expect(connection: socket.socket, ring: RingWriter | None) -> None:
            connection.setblocking(False)
            waiting[connection.fileno()] = connection, ring
            poller.register(connection, select.POLLIN)

        try:
            for address in list(missing.values()):
                if address.worker < self._worker:
                    with contextlib.suppress(ConnectionError, FileNotFoundError):  # it is gone: told as missing
                        connection = self._call(address)
                        greeted.add(connection.fileno())
                        expect(connection, self._greet(connection, address.worker, room))
            while missing and not given_up() and (left := deadline - time.monotonic()) > 0:
                for descriptor, _ in poller.poll(min(left, _LOOK_EVERY_S) * 1000):
                    if descriptor == self._listener.fileno():
                        with contextlib.suppress(BlockingIOError, ConnectionError):
                            expect(self._listener.accept()[0], None)
                        continue
                    connection, ring = waiting.pop(descriptor)
                    poller.unregister(descriptor)
                    found = self._hello(connection, missing)
                    if found is None:
                        connection.close()
                        continue
                    worker, received = found
                    if descriptor not in greeted:
                        ring = self._greet(connection, worker, room)
                    del missing[worker]
                    links.append(Link(worker, connection, ring, received))
        finally:
            for connection, _ in waiting.values():
                connection.close()
            self.close()
        return links

    def _call(self, address: WorkerAddress) -> socket.socket:
        connection = _socket()
        try:
            connection.connect(address.link)
            if _user_of(connection) != os.geteuid():
                raise ConnectionRefusedError(f"{address.link} belongs to another user")
        except BaseException:
            connection.close()
            raise
        return connection

    def _greet(self, connection: socket.socket, worker: int, room: Mapping[int, int]) -> RingWriter | None:
        """Say hello, with new memory if arrays are sent to the worker."""
        n_bytes = room.get(worker, 0)
        try:
            ring = RingWriter(n_bytes) if n_bytes else None
        except OSError as error:
            raise MemoryError(f"no {n_bytes:,} bytes of memory for the link to worker {worker}: {error}") from None
        hello = _HELLO.pack(self.secret, self._worker, self._generation, 0 if ring is None else ring.capacity)
        with contextlib.suppress(ConnectionError):  # it is gone: told as missing, or as lost later
            socket.send_fds(connection, [hello], [] if ring is None else [ring.descriptor])
        if ring is not None:
            ring.forget_descriptor()
        return ring

    def _hello(
        self, connection: socket.socket, missing: Mapping[int, WorkerAddress]
    ) -> tuple[int, RingReader | None] | None:
        """Return the worker that says hello, and its memory; None if it is not one that we expect."""
        try:
            message, descriptors, _, _ = socket.recv_fds(connection, _HELLO.size + 1, 1)
        except OSError:
            return None
        try:
            if len(message) != _HELLO.size or _user_of(connection) != os.geteuid():
                return None
            secret, worker, generation, capacity = _HELLO.unpack(message)
            address = missing.get(worker)
            if address is None or not hmac.compare_digest(secret, address.secret) or generation != self._generation:
                return None
            if bool(descriptors) != bool(capacity):
                return None
            return worker, RingReader(worker, descriptors.pop(), capacity) if descriptors else None
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def close(self) -> None:
        """Take no more connections. A second call does no harm."""
        self._listener.close()


def _socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _user_of(connection: socket.socket) -> int:
    """Return the user of the process at the other end, as the kernel knows it."""
    found: tuple[int, int, int] = _CREDENTIALS.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return found[1]
