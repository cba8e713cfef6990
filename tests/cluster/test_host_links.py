"""What only links over shared memory do."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cluster.actors.channel import WorkerChannel
from cluster.actors.link_setup import _HELLO, can_link
from stages.actions import Kind
from stages.channel import ReceiveTimeout, Tag
from tests.cluster.channels import HERE, LINK, ROOM, connect, open_channels
from tests.other_user import become_nobody, needs_nobody

pytestmark = pytest.mark.skipif(not can_link(), reason="this system has no memfd")

TAG = Tag(0, 0, Kind.FORWARD, 0)


def _pair(unattended_s: float = 20.0) -> tuple[WorkerChannel, WorkerChannel]:
    a, b = channels = open_channels(LINK, unattended_s=unattended_s)
    connect(channels)
    return a, b


def test_a_sender_that_is_far_ahead_fills_the_link_and_no_more() -> None:
    a, b = _pair(unattended_s=0.05)
    array = np.ones((64, 256), np.float32)
    fits = ROOM // array.nbytes
    for j in range(fits):
        a.send(1, TAG._replace(micro_batch=j), array)
    with pytest.raises(ReceiveTimeout, match=rf"worker 1 received nothing for 0\.05 s \(.* for 0F{fits}\)"):
        a.send(1, TAG._replace(micro_batch=fits), array)
    assert b._arrived == {}
    assert a.shared_bytes == b.shared_bytes == 2 * ROOM
    for j in range(fits):
        np.testing.assert_array_equal(b.receive(TAG._replace(micro_batch=j)), array)
    a.close()
    b.close()


def test_a_receiver_that_uses_arrays_in_order_holds_none_but_the_present_one() -> None:
    a, b = _pair()
    array = np.ones((64, 256), np.float32)

    def send() -> None:
        for j in range(200):
            a.send(1, TAG._replace(micro_batch=j), array)

    with ThreadPoolExecutor(1) as threads:
        sent = threads.submit(send)
        for j in range(200):
            b.receive(TAG._replace(micro_batch=j))
            copies = [one for one in b._arrived.values() if isinstance(one, np.ndarray)]
            assert copies == []
        sent.result(60)
    a.close()
    b.close()


def test_all_workers_linked_need_no_other_sockets() -> None:
    before = threading.active_count()
    a, b = _pair()
    assert a._zmq is None
    assert b._zmq is None
    assert threading.active_count() == before
    a.close()
    b.close()


@pytest.mark.parametrize("last", ["array", "nothing"])
def test_a_dead_worker_is_named_by_those_that_wait_for_it(last: str) -> None:
    """What it sent before its end arrives, even if it left something unread."""
    a, b = _pair(unattended_s=0.05)
    a.send(1, TAG, np.ones((2, 2)))
    if last == "array":
        b.send(0, TAG, np.ones((3, 3)))
    b.close()
    if last == "array":
        assert a.receive(TAG).shape == (3, 3)
    with pytest.raises(ReceiveTimeout, match=r"waited 0\.05 s for the activations for 0F0; worker 1 has closed its"):
        a.receive(TAG)
    with pytest.raises(ReceiveTimeout, match=r"worker 1 received nothing .*; worker 1 has closed its link"):
        a.send(1, TAG, np.ones((2, 2)))
    a.close()


def test_workers_of_two_attempts_do_not_connect() -> None:
    channels = open_channels(LINK, generations=(1, 2), timeout_s=0.2)
    with pytest.raises(ReceiveTimeout, match="no connection with worker"):
        connect(channels)
    for channel in channels:
        channel.close()


def _knock(path: str, hello: bytes) -> socket.socket:
    """Connect as a process that was not admitted, before the workers do."""
    stranger = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stranger.settimeout(20)
    stranger.connect(path)
    stranger.send(hello)
    return stranger


def _is_let_in(stranger: socket.socket) -> bool:
    with stranger:
        try:
            return stranger.recv(4096) != b""
        except ConnectionError:
            return False


@pytest.mark.parametrize("message", [b"", b"hello", _HELLO.pack(b"guessed", 1, 1, 0), _HELLO.pack(b"guessed", 7, 1, 0)])
def test_a_stranger_gets_no_link_and_does_not_hold_up_the_workers(message: bytes) -> None:
    a, b = channels = open_channels(LINK)
    stranger = _knock(a.address.link, message)
    connect(channels)
    assert not _is_let_in(stranger)
    a.send(1, TAG, np.ones((2, 2)))
    assert b.receive(TAG).shape == (2, 2)
    a.close()
    b.close()


@needs_nobody
def test_another_user_gets_no_link_even_with_the_secret() -> None:
    a, b = channels = open_channels(LINK)
    path, hello = a.address.link, _HELLO.pack(b.address.secret, 1, 1, 0)
    told, go_on = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:  # nobody may not even run our Python, so no new program is started
        try:
            become_nobody()
            with contextlib.suppress(PermissionError):
                _knock(path, hello)
                os.write(told[1], b"could enter the folder")
            os.write(told[1], b"shut out")
            os.read(go_on[0], 1)
            stranger = _knock(path, hello)
            os.write(told[1], b"knocked")
            os.write(told[1], b"let in" if _is_let_in(stranger) else b"shut out")
        finally:
            os._exit(0)
    assert os.read(told[0], 40) == b"shut out", "the folder is closed to other users"
    Path(path).parent.chmod(0o711)
    Path(path).chmod(0o777)
    os.write(go_on[1], b".")
    assert os.read(told[0], 7) == b"knocked"
    connect(channels)
    assert os.read(told[0], 40) == b"shut out"
    os.waitpid(child, 0)
    assert a._routes.keys() == {1}
    a.send(1, TAG, np.ones((2, 2)))
    assert b.receive(TAG).shape == (2, 2)
    for descriptor in (*told, *go_on):
        os.close(descriptor)
    a.close()
    b.close()


def test_a_host_without_memfd_uses_zeromq(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    channels = [WorkerChannel(w, node="n", host_ip=HERE, timeout_s=20.0) for w in range(2)]
    assert [channel.address.link for channel in channels] == ["", ""]
    for channel in channels:
        channel.admit([one.address for one in channels])
    connect(channels)
    channels[0].send(1, TAG, np.ones((2, 2)))
    assert channels[1].receive(TAG).shape == (2, 2)
    assert channels[0].shared_bytes == 0
    for channel in channels:
        channel.close()


def test_killed_and_stopped_peers_leave_nothing() -> None:
    """50 workers are killed while both sides send; a helper process counts what is left after each."""
    found = subprocess.run(
        [sys.executable, "-m", "tests.cluster.killed_peers", "50"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1] == "50 peers ended, nothing left"
