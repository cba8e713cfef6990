"""Carries arrays over ZeroMQ: CURVE-encrypted TCP between hosts, and unix sockets on a host that cannot share memory.

Each worker binds one inbox and connects to the inboxes of other workers. A message is two frames: a header (generation,
tag, shape, dtype) and the array's bytes. The unix socket's file is needed only until all workers are connected.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from zmq.auth.thread import ThreadAuthenticator

from cluster.actors.protocol import DTYPE_CODES, DTYPES, KIND_CODES, KINDS, WorkerAddress
from stages.arrays import Array
from stages.channel import Tag

_HEADER = struct.Struct("<qqqqqqcc")  # generation, round, stage, micro-batch, features, rows, kind, dtype
_HELLO = b"hello"
_LOOK_EVERY_S = 0.2  # whether the wait for the others is given up
_QUEUE = 32  # messages per link before a sender waits: bounds the memory of a fast sender's receiver


class ZmqLinks:
    """A worker's links over ZeroMQ. Puts arrays that arrive into `arrived`. One thread uses it."""

    def __init__(
        self, worker: int, folder: Path, *, node: str, host_ip: str, generation: int, arrived: dict[Tag, Any]
    ) -> None:
        self._worker, self._node, self._generation, self._arrived = worker, node, generation, arrived
        self._context = zmq.Context()
        self._inbox = self._context.socket(zmq.PULL)
        self._inbox.setsockopt(zmq.RCVHWM, _QUEUE)
        self._inbox.setsockopt(zmq.LINGER, 0)
        self._outboxes: dict[int, zmq.Socket[bytes]] = {}
        self._greeted: set[int] = set()
        self.unix = f"ipc://{folder}/inbox"
        self._inbox.bind(self.unix)
        self.public_key, self._secret_key = zmq.curve_keypair()
        self._authenticator: ThreadAuthenticator | None = None
        self._tcp: zmq.Socket[bytes] | None = None
        self._inboxes = [self._inbox]
        self.tcp = self._bind_tcp(host_ip)

    def _bind_tcp(self, host_ip: str) -> str:
        """Bind a second inbox, for workers on other hosts. It rejects every connection until `admit` lists the allowed
        keys."""
        self._authenticator = ThreadAuthenticator(self._context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback(domain="*", credentials_provider=_Nobody())
        self._tcp = self._context.socket(zmq.PULL)
        self._tcp.setsockopt(zmq.RCVHWM, _QUEUE)
        self._tcp.setsockopt(zmq.LINGER, 0)
        self._tcp.curve_secretkey, self._tcp.curve_publickey = self._secret_key, self.public_key
        self._tcp.curve_server = True
        port = self._tcp.bind_to_random_port(f"tcp://{host_ip}")
        self._inboxes.append(self._tcp)
        return f"tcp://{host_ip}:{port}"

    def admit(self, addresses: Sequence[WorkerAddress]) -> None:
        """Allow connections of these workers only. All workers do this before any of them connects, because a rejected
        worker does not try again."""
        remote = [address for address in addresses if address.node != self._node]
        if remote:
            assert self._authenticator is not None, "made by _bind_tcp"
            known = _Known({address.public_key for address in remote})
            self._authenticator.configure_curve_callback(domain="*", credentials_provider=known)
        else:
            self._close_tcp()

    def connect(
        self, addresses: Sequence[WorkerAddress], deadline: float, given_up: Callable[[], bool] = lambda: False
    ) -> Collection[int]:
        """Connect to these workers, and wait for their greetings. Return the workers that sent none before `deadline`,
        or until `given_up`."""
        for address in addresses:
            self._outboxes[address.worker] = self._open(address)
            self._outboxes[address.worker].send_multipart([_HELLO, struct.pack("<q", self._worker)])
        wanted = {address.worker for address in addresses}
        poller = zmq.Poller()
        for inbox in self._inboxes:
            poller.register(inbox, zmq.POLLIN)
        while not wanted <= self._greeted:
            if self.take():
                continue
            left = deadline - time.monotonic()
            if left <= 0 or given_up():
                break
            poller.poll(math.ceil(min(left, _LOOK_EVERY_S) * 1000))
        return wanted - self._greeted

    def _open(self, address: WorkerAddress) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.PUSH)
        socket.setsockopt(zmq.SNDHWM, _QUEUE)
        socket.setsockopt(zmq.LINGER, 0)
        if address.node == self._node:
            socket.connect(address.unix)
        else:
            socket.curve_secretkey, socket.curve_publickey = self._secret_key, self.public_key
            socket.curve_serverkey = address.public_key
            socket.connect(address.tcp)
        return socket

    def register(self, poller: zmq.Poller) -> None:
        """Let `poller` wake up if a message comes."""
        for inbox in self._inboxes:
            poller.register(inbox, zmq.POLLIN)

    def offer(self, worker: int, tag: Tag, array: Array) -> bool:
        """Send the array if the link has room for it now; return whether it has."""
        contiguous = np.ascontiguousarray(array)
        features, rows = contiguous.shape
        header = _HEADER.pack(
            self._generation,
            *(tag.round, tag.stage, tag.micro_batch, features, rows),
            *(KIND_CODES[tag.kind], DTYPE_CODES[contiguous.dtype]),
        )
        try:
            self._outboxes[worker].send_multipart((header, contiguous.data), zmq.DONTWAIT)
        except zmq.Again:
            return False
        return True

    def take(self) -> bool:
        """Take in one message if there is any; return whether there was."""
        for inbox in self._inboxes:
            try:
                header, payload = inbox.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                continue
            self._store(header, payload)
            return True
        return False

    def _store(self, header: zmq.Frame, payload: zmq.Frame) -> None:
        if header.bytes == _HELLO:
            self._greeted.add(struct.unpack("<q", payload.bytes)[0])
            return
        generation, rnd, stage, micro_batch, features, rows, kind, code = _HEADER.unpack(header.bytes)
        if generation == self._generation:
            array: Array = np.frombuffer(payload.buffer, dtype=DTYPES[code])
            self._arrived[Tag(rnd, stage, KINDS[kind], micro_batch)] = array.reshape(features, rows)

    def close(self) -> None:
        """Close every socket. A second call does no harm."""
        for socket in (self._inbox, *self._outboxes.values()):
            socket.close()
        self._outboxes.clear()
        self._close_tcp()
        self._context.term()

    def _close_tcp(self) -> None:
        if self._tcp is not None:
            self._inboxes.remove(self._tcp)
            self._tcp.close()
            self._tcp = None
        if self._authenticator is not None:
            self._authenticator.stop()
            self._authenticator = None


class _Known:
    """Accepts exactly these public keys."""

    def __init__(self, keys: set[bytes]) -> None:
        self._keys = keys

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether a worker with this key may connect."""
        return key in self._keys


class _Nobody(_Known):
    """Accepts no key, before the keys are known."""

    def __init__(self) -> None:
        super().__init__(set())
