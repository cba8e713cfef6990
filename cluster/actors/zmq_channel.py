"""Sends arrays between workers over ZeroMQ: unix sockets on one host, CURVE-encrypted TCP between hosts.

Each worker binds one inbox and connects to the inbox of every other worker. A message is two frames: a header (tag,
dtype, shape) and the array's bytes. The unix socket's file is needed only until all workers are connected; `seal`
removes it, so that nothing is left on disk whatever happens to the processes later.
"""

from __future__ import annotations

import math
import os
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zmq
from zmq.auth.thread import ThreadAuthenticator

from cluster.actors.clocks import clock_name
from cluster.actors.private_folders import PrivateFolder, make_private_folder
from stages.actions import Kind
from stages.arrays import Array
from stages.channel import Attendance, ReceiveTimeout, Tag

_HEADER = struct.Struct("<qqqqqcc")  # round, stage, micro-batch, features, rows, kind, dtype
_HELLO = b"hello"
_QUEUE = 32  # messages per link before a sender waits: bounds the memory of a fast sender's receiver
_CODES: dict[np.dtype[Any], bytes] = {np.dtype(np.float32): b"f", np.dtype(np.float64): b"d"}
_DTYPES: dict[object, np.dtype[np.floating[Any]]] = {code: dtype for dtype, code in _CODES.items()}
_KINDS = {kind.value.encode(): kind for kind in Kind}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerAddress:
    """A worker's addresses, and its public key for TCP. `clock` names its monotonic clock."""

    worker: int
    host: str
    node: str
    pid: int
    unix: str
    tcp: str
    public_key: bytes
    clock: str


class ZmqChannel:
    """A worker's end of the channel. One thread uses it. `timeout_s` is how long connecting may take; `unattended_s` is
    how long a receive or a blocked send may take while nobody attends (see Attendance), by default `timeout_s`."""

    def __init__(
        self, worker: int, *, node: str, host_ip: str, timeout_s: float, unattended_s: float | None = None
    ) -> None:
        self._worker, self._timeout_s = worker, timeout_s
        self.attendance = Attendance(timeout_s if unattended_s is None else unattended_s)
        self._context = zmq.Context()
        self._inbox = self._context.socket(zmq.PULL)
        self._inbox.setsockopt(zmq.RCVHWM, _QUEUE)
        self._inbox.setsockopt(zmq.LINGER, 0)
        self._outboxes: dict[int, zmq.Socket[bytes]] = {}
        self._arrived: dict[Tag, Array] = {}
        self._greeted: set[int] = set()
        self._folder: PrivateFolder | None = make_private_folder()
        unix = f"ipc://{self._folder.path}/inbox"
        self._inbox.bind(unix)
        self._public_key, self._secret_key = zmq.curve_keypair()
        self._authenticator: ThreadAuthenticator | None = None
        self._tcp: zmq.Socket[bytes] | None = None
        self._inboxes = [self._inbox]
        self._poller = zmq.Poller()
        self._poller.register(self._inbox, zmq.POLLIN)
        self.address = WorkerAddress(
            worker=worker,
            host=os.uname().nodename,
            node=node,
            pid=os.getpid(),
            unix=unix,
            tcp=self._bind_tcp(host_ip),
            public_key=self._public_key,
            clock=clock_name(),
        )

    def _bind_tcp(self, host_ip: str) -> str:
        """Bind a second inbox, for workers on other hosts. It rejects every connection until `admit` lists the allowed
        keys."""
        self._authenticator = ThreadAuthenticator(self._context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback(domain="*", credentials_provider=_Nobody())
        self._tcp = self._context.socket(zmq.PULL)
        self._tcp.setsockopt(zmq.RCVHWM, _QUEUE)
        self._tcp.setsockopt(zmq.LINGER, 0)
        self._tcp.curve_secretkey, self._tcp.curve_publickey = self._secret_key, self._public_key
        self._tcp.curve_server = True
        port = self._tcp.bind_to_random_port(f"tcp://{host_ip}")
        self._poller.register(self._tcp, zmq.POLLIN)
        self._inboxes.append(self._tcp)
        return f"tcp://{host_ip}:{port}"

    def admit(self, addresses: Sequence[WorkerAddress]) -> None:
        """Allow connections of these workers only. All workers do this before any of them connects, because a rejected
        worker does not try again."""
        remote = [address for address in addresses if address.node != self.address.node]
        if remote:
            assert self._authenticator is not None, "made by _bind_tcp"
            known = _Known({address.public_key for address in remote})
            self._authenticator.configure_curve_callback(domain="*", credentials_provider=known)
        else:
            self._close_tcp()

    def connect(self, addresses: Sequence[WorkerAddress]) -> None:
        """Connect to the other workers, and wait for their greetings. Raises ReceiveTimeout, which names workers that
        sent none."""
        others = [address for address in addresses if address.worker != self._worker]
        for address in others:
            self._outboxes[address.worker] = self._open(address)
            self._outboxes[address.worker].send_multipart([_HELLO, struct.pack("<q", self._worker)])
        deadline = time.monotonic() + self._timeout_s
        wanted = {address.worker for address in others}
        while not wanted <= self._greeted:
            if not self._take_in(deadline):
                missing = sorted(wanted - self._greeted)
                places = ", ".join(f"worker {a.worker} on {a.host}" for a in others if a.worker in missing)
                raise ReceiveTimeout(f"no connection with {places} after {self._timeout_s:g} s")

    def _open(self, address: WorkerAddress) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.PUSH)
        socket.setsockopt(zmq.SNDHWM, _QUEUE)
        socket.setsockopt(zmq.LINGER, 0)
        if address.node == self.address.node:
            socket.connect(address.unix)
        else:
            socket.curve_secretkey, socket.curve_publickey = self._secret_key, self._public_key
            socket.curve_serverkey = address.public_key
            socket.connect(address.tcp)
        return socket

    def seal(self) -> None:
        """Remove the unix socket's file, after all workers have connected."""
        if self._folder is not None:
            self._folder.remove()
            self._folder = None

    def send(self, worker: int, tag: Tag, array: Array) -> None:
        """See Channel. While the link's queue is full, this waits and receives, so that two full links do not
        deadlock."""
        contiguous = np.ascontiguousarray(array)
        features, rows = contiguous.shape
        header = _HEADER.pack(
            tag.round, tag.stage, tag.micro_batch, features, rows, tag.kind.value.encode(), _CODES[contiguous.dtype]
        )
        outbox, began = self._outboxes[worker], None
        while True:
            try:
                outbox.send_multipart((header, contiguous.data), zmq.DONTWAIT)
                return
            except zmq.Again:
                began = self.attendance.now() if began is None else began
                if self.attendance.left(began) <= 0:
                    raise ReceiveTimeout(
                        f"worker {worker} received nothing for {self.attendance.limit_s:g} s (sending the {tag})"
                    ) from None
                self._take_in(time.monotonic() + 0.005)

    def receive(self, tag: Tag) -> Array:
        """See Channel."""
        began = None
        while tag not in self._arrived:
            began = self.attendance.now() if began is None else began
            left = self.attendance.left(began)
            if left <= 0:
                raise ReceiveTimeout(f"waited {self.attendance.limit_s:g} s for the {tag}")
            self._take_in(time.monotonic() + left)
        return self._arrived.pop(tag)

    def _take_in(self, deadline: float) -> bool:
        """Receive one message; return False if none came before `deadline`."""
        while True:
            for inbox in self._inboxes:
                try:
                    header, payload = inbox.recv_multipart(zmq.DONTWAIT, copy=False)
                except zmq.Again:
                    continue
                self._store(header, payload)
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._poller.poll(math.ceil(left * 1000))

    def _store(self, header: zmq.Frame, payload: zmq.Frame) -> None:
        if header.bytes == _HELLO:
            self._greeted.add(struct.unpack("<q", payload.bytes)[0])
            return
        rnd, stage, micro_batch, features, rows, kind, code = _HEADER.unpack(header.bytes)
        array: Array = np.frombuffer(payload.buffer, dtype=_DTYPES[code])
        self._arrived[Tag(rnd, stage, _KINDS[kind], micro_batch)] = array.reshape(features, rows)

    def close(self) -> None:
        """Close every socket, and remove the socket's file if it is still there. A second call does no harm."""
        self.seal()
        for socket in (self._inbox, *self._outboxes.values()):
            socket.close()
        self._outboxes.clear()
        self._close_tcp()
        self._context.term()

    def _close_tcp(self) -> None:
        if self._tcp is not None:
            self._poller.unregister(self._tcp)
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
