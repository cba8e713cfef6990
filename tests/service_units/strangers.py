"""Callers without the token that send as much as they can."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

_HEADERS, _DATA, _SETTINGS, _END_HEADERS = 1, 0, 4, 4


@dataclass(frozen=True, slots=True)
class Bare:
    """The ports of `bare_service`, and its process id."""

    pid: int
    grpc_port: int
    http_port: int

    @contextmanager
    def memory_within(self, most: int) -> Iterator[None]:
        """Fail if the peak of the process's memory grows by more than this many bytes during the block."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # resets the peak
        before = self._bytes("VmRSS")
        yield
        taken = self._bytes("VmHWM") - before
        assert taken < most, f"{taken:,} bytes"

    def connections(self) -> int:
        """Return the number of sockets that its process has open."""
        found = 0
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                found += str(os.readlink(entry)).startswith("socket:")
        return found

    def _bytes(self, figure: str) -> int:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{figure}:")))


@contextmanager
def bare_service() -> Iterator[Bare]:
    """Run the two ports of a service without the service behind them."""
    command = [sys.executable, "-m", "tests.service_units.bare_service"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            grpc_port, http_port = map(int, process.stdout.readline().split())
            yield Bare(process.pid, grpc_port, http_port)
        finally:
            process.kill()


def send_messages(port: int, method: str, *, connections: int, calls: int, n_bytes: int) -> Counter[str]:
    """Make these many calls of a method on each of these connections at once, each with a message of this many bytes;
    return how often each status code was the answer."""
    message = b"\n" + b"\xff" * (n_bytes - 1)
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1))
    with ExitStack() as undo:
        channels = [grpc.insecure_channel(f"127.0.0.1:{port}", options=options) for _ in range(connections)]
        for channel in channels:
            undo.callback(channel.close)
        pending = [
            channel.unary_unary(method).future(message, timeout=90) for channel in channels for _ in range(calls)
        ]
        return Counter(call.code().name for call in pending)


class Dribble:
    """Connections that begin calls with large messages, then send them a little at a time, and do not read answers."""

    def __init__(self, port: int, method: str, *, connections: int, calls: int) -> None:
        self.sent = 0
        self._undo = ExitStack()
        self._sockets: list[socket.socket] = []
        for _ in range(connections):
            opened = self._undo.enter_context(socket.create_connection(("127.0.0.1", port)))
            opened.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0))
            opened.setblocking(False)
            self._sockets.append(opened)
        self._streams = range(1, 2 * calls, 2)
        begun = struct.pack(">BI", 0, 2_000_000) + b"x" * 500  # not compressed, and the message's size
        for stream in self._streams:
            self._send(_frame(_HEADERS, _END_HEADERS, stream, _request(method)) + _frame(_DATA, 0, stream, begun))

    @property
    def open(self) -> int:
        """Return the connections that the service has not closed."""
        return len(self._sockets)

    def go_on(self, seconds: float) -> None:
        """Send further parts of each message."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for stream in self._streams:
                self._send(_frame(_DATA, 0, stream, b"x" * 1000))

    def _send(self, content: bytes) -> None:
        for opened in list(self._sockets):
            try:
                self.sent += opened.send(content)
            except BlockingIOError:
                continue
            except OSError:  # the service has closed it
                self._sockets.remove(opened)

    def __enter__(self) -> Dribble:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()


def flood(port: int, content: bytes, part: bytes, *, connections: int, parts: int) -> list[bytes]:
    """Send `content` and then `part` this many times on all connections at once, as long as the service accepts them;
    return the first line of each answer."""
    answers: list[bytes] = []

    def one() -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as opened:
            try:
                opened.sendall(content)
                for _ in range(parts):
                    opened.sendall(part)
            except OSError:
                pass
            try:
                answers.append(opened.recv(4096).partition(b"\r\n")[0])
            except OSError:
                answers.append(b"")

    threads = [threading.Thread(target=one) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return answers


def _frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content


def _request(method: str) -> bytes:
    fields: tuple[tuple[str, Any], ...] = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "service"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    )
    return b"".join(
        b"\0" + _text(name) + _text(value) for name, value in fields
    )  # a literal header, not an indexed one


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()
