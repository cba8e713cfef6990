"""What the kernel knows of a worker's TCP connections to other hosts: whether what was sent has arrived.

ZeroMQ tells nobody, and its own heartbeats would close a connection whose cable is out for a moment, with all that is
on its way. TCP keeps it and goes on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from stages.progress import LinkSeen

_TCP_INFO = getattr(socket, "TCP_INFO", None)
_INFO = struct.Struct("@8B 4I I 19I 2Q Q")
"""The beginning of struct tcp_info: the fifth of the 32-bit numbers has the segments without acknowledgement, the third
of the 64-bit ones the bytes with it."""
_UNACKNOWLEDGED, _ACKNOWLEDGED = 12, 34


class TcpLinks:
    """The connections of this process to `peers`: by worker, its address `tcp://HOST:PORT`. Any thread may call."""

    def __init__(self, peers: Mapping[int, str]) -> None:
        self._peers = {}
        for worker, url in peers.items():
            parts = urlsplit(url)
            self._peers[parts.hostname or "", parts.port or 0] = worker
        self._found: dict[int, int] = {}  # descriptors by worker

    def seen(self) -> tuple[LinkSeen, ...]:
        """Return the state of each connection; none if this system does not tell."""
        if not self._peers or _TCP_INFO is None:
            return ()
        states = {worker: self._state(descriptor, worker) for worker, descriptor in self._found.items()}
        if not all(states.get(worker) for worker in self._peers.values()):
            self._find()
            states = {worker: self._state(descriptor, worker) for worker, descriptor in self._found.items()}
        return tuple(states.get(w) or LinkSeen(w, None, waiting=False) for w in sorted(self._peers.values()))

    def _find(self) -> None:
        """Find the descriptors of the connections among all descriptors of this process, as ZeroMQ does not tell."""
        self._found = {}
        for name in os.listdir("/proc/self/fd"):
            worker = _at_other_end(int(name), self._peers)
            if worker is not None:
                self._found[worker] = int(name)

    def _state(self, descriptor: int, worker: int) -> LinkSeen | None:
        """Return the state; None if the descriptor has become another one."""
        if _at_other_end(descriptor, self._peers) != worker:
            return None
        with contextlib.suppress(OSError), _duplicate(descriptor) as connection:
            assert _TCP_INFO is not None, "checked before"
            fields = connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _INFO.size)
            if len(fields) == _INFO.size:
                numbers = _INFO.unpack(fields)
                return LinkSeen(worker, numbers[_ACKNOWLEDGED], waiting=numbers[_UNACKNOWLEDGED] > 0)
        return None


@contextlib.contextmanager
def _duplicate(descriptor: int) -> Iterator[socket.socket]:
    """Yield a duplicate of a socket. Raises OSError if the descriptor is none, or is closed."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        raise OSError(errno.ENOTSOCK, "no socket")
    copy = os.dup(descriptor)
    try:
        connection = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
    with connection:
        yield connection


def _at_other_end(descriptor: int, peers: Mapping[tuple[str, int], int]) -> int | None:
    with contextlib.suppress(OSError), _duplicate(descriptor) as connection:
        if connection.family in (socket.AF_INET, socket.AF_INET6):
            host, port = connection.getpeername()[:2]
            return peers.get((host, port))
    return None
