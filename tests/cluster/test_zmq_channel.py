from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import zmq

from cluster.actors.zmq_channel import ZmqChannel
from stages.actions import Kind
from stages.arrays import Array
from stages.channel import Attendance, ReceiveTimeout, Tag

HERE = "127.0.0.1"


def _pair(nodes: tuple[str, str], unattended_s: float = 20.0) -> tuple[ZmqChannel, ZmqChannel]:
    """Return two connected channels."""
    limits = {"timeout_s": 20.0, "unattended_s": unattended_s}
    a, b = (ZmqChannel(w, node=node, host_ip=HERE, **limits) for w, node in enumerate(nodes))
    for channel in (a, b):
        channel.admit([a.address, b.address])
    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(c.connect, [a.address, b.address]) for c in (a, b)]:
            done.result(60)
    return a, b


@pytest.fixture(params=[("n", "n"), ("n", "m")], ids=["unix", "tcp"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[ZmqChannel, ZmqChannel]]:
    channels = _pair(request.param)
    yield channels
    for channel in channels:
        channel.close()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_arrive_whole_in_any_order_of_asking(pair: tuple[ZmqChannel, ZmqChannel], dtype: type) -> None:
    a, b = pair
    rng = np.random.default_rng(0)
    sent: dict[Tag, Array] = {
        Tag(r, s, k, j): rng.normal(size=(s + 1, j + 1)).astype(dtype)
        for r in range(2)
        for s in range(3)
        for k in (Kind.FORWARD, Kind.BACKWARD_INPUT)
        for j in range(2)
    }
    for tag, array in sent.items():
        a.send(1, tag, array)
    for tag in reversed(sent):
        found = b.receive(tag)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, sent[tag])


def test_the_sender_may_change_the_array_at_once_and_strided_ones_are_sent_right(
    pair: tuple[ZmqChannel, ZmqChannel],
) -> None:
    a, b = pair
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    expected = array.T.copy()
    a.send(1, Tag(0, 0, Kind.FORWARD, 0), array.T)
    array[:] = -1
    np.testing.assert_array_equal(b.receive(Tag(0, 0, Kind.FORWARD, 0)), expected)


def test_two_full_links_do_not_deadlock(pair: tuple[ZmqChannel, ZmqChannel]) -> None:
    """Both channels send far more than the queues hold before either receives."""
    array = np.ones((64, 256), np.float32)

    def exchange(channel: ZmqChannel, other: int) -> int:
        tags = [Tag(0, 0, Kind.FORWARD, j) for j in range(1000)]
        for tag in tags:
            channel.send(other, tag, array)
        return sum(channel.receive(tag).shape == (64, 256) for tag in tags)

    with ThreadPoolExecutor(2) as threads:
        results = [threads.submit(exchange, pair[0], 1), threads.submit(exchange, pair[1], 0)]
        assert [result.result(60) for result in results] == [1000, 1000]


def test_waiting_in_vain_ends_and_says_for_what() -> None:
    a, b = _pair(("n", "n"), unattended_s=0.2)
    with pytest.raises(ReceiveTimeout, match=r"waited 0\.2 s for the gradients for 3I1"):
        a.receive(Tag(0, 3, Kind.BACKWARD_INPUT, 1))
    with pytest.raises(ReceiveTimeout, match=r"worker 1 received nothing for 0\.2 s"):
        _send_many(a, 100_000)
    a.close()
    b.close()


def _send_many(channel: ZmqChannel, count: int) -> None:
    array = np.ones((64, 256), np.float32)
    for j in range(count):
        channel.send(1, Tag(0, 0, Kind.FORWARD, j), array)


@dataclass
class _Stopped:
    """A clock that stands still, so that the last call always seems recent. `looked` is set after a few reads."""

    reads: int = 0
    looked: threading.Event = field(default_factory=threading.Event)

    def __call__(self) -> float:
        self.reads += 1
        if self.reads == 6:
            self.looked.set()
        return 0.0


def test_waiting_goes_on_while_somebody_looks_after_the_worker() -> None:
    a, b = _pair(("n", "n"))
    tag, array, clock = Tag(0, 0, Kind.FORWARD, 0), np.ones((2, 2)), _Stopped()
    b.attendance = Attendance(0.05, clock)
    with ThreadPoolExecutor(1) as threads:
        came = threads.submit(b.receive, tag)
        looked_again = clock.looked.wait(60)
        a.send(1, tag, array)
        assert looked_again, "it checks again each time its own limit has passed"
        np.testing.assert_array_equal(came.result(60), array)
    a.close()
    b.close()


def test_who_does_not_connect_is_named() -> None:
    a = ZmqChannel(0, node="n", host_ip=HERE, timeout_s=0.2)
    b = ZmqChannel(1, node="n", host_ip=HERE, timeout_s=0.2)
    a.admit([a.address, b.address])
    with pytest.raises(ReceiveTimeout, match=r"no connection with worker 1 on .* after 0\.2 s"):
        a.connect([a.address, b.address])
    a.close()
    b.close()


def test_nothing_is_left_on_disk_once_all_are_connected() -> None:
    a, b = _pair(("n", "n"))
    folders = [Path(c.address.unix.removeprefix("ipc://")).parent for c in (a, b)]
    assert all(folder.exists() for folder in folders)
    for channel in (a, b):
        channel.seal()
    assert not any(folder.exists() for folder in folders)
    a.send(1, Tag(0, 0, Kind.FORWARD, 0), np.ones((2, 2)))
    np.testing.assert_array_equal(b.receive(Tag(0, 0, Kind.FORWARD, 0)), np.ones((2, 2)))
    a.close()
    b.close()


def test_a_stranger_gets_nothing_into_a_tcp_inbox() -> None:
    a, b = _pair(("n", "m"), unattended_s=1.0)
    context = zmq.Context()
    for with_key in (False, True):
        stranger = context.socket(zmq.PUSH)
        stranger.setsockopt(zmq.LINGER, 0)
        if with_key:  # even one that knows the address and has its own keys
            stranger.curve_publickey, stranger.curve_secretkey = zmq.curve_keypair()
            stranger.curve_serverkey = b.address.public_key
        stranger.connect(b.address.tcp)
        done = threading.Thread(target=stranger.send_multipart, args=([b"hello", b"\x07" + b"\0" * 7],), daemon=True)
        done.start()
        with pytest.raises(ReceiveTimeout):
            b.receive(Tag(0, 0, Kind.FORWARD, 0))
        assert 7 not in b._greeted
        stranger.close()
    context.term()
    a.close()
    b.close()
