"""What every channel between workers does, over shared memory, ZeroMQ's unix sockets and TCP."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from cluster.actors.channel import WorkerChannel
from stages.actions import Kind
from stages.arrays import Array
from stages.channel import Attendance, ChannelClosed, ReceiveTimeout, Tag
from tests.cluster.channels import IPC, LINK, ONE_CANNOT, TCP, Hosts, connect, open_channels

Pair = tuple[WorkerChannel, WorkerChannel]


def _pair(kind: Hosts, unattended_s: float = 20.0, *, spin: bool = False) -> Pair:
    """Return two connected channels."""
    a, b = channels = open_channels(kind, unattended_s=unattended_s)
    connect(channels, spin=spin)
    return a, b


@pytest.fixture(params=[(LINK, False), (LINK, True), (IPC, False), (ONE_CANNOT, False), (TCP, False)],
                ids=["link", "spinning", "ipc", "one-cannot", "tcp"])  # fmt: skip
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    kind, spin = request.param
    channels = _pair(kind, spin=spin)
    yield channels
    for channel in channels:
        channel.close()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_arrive_whole_in_any_order_of_asking(pair: Pair, dtype: type) -> None:
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


def test_the_sender_may_change_the_array_at_once_and_strided_ones_are_sent_right(pair: Pair) -> None:
    a, b = pair
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    expected = array.T.copy()
    a.send(1, Tag(0, 0, Kind.FORWARD, 0), array.T)
    array[:] = -1
    np.testing.assert_array_equal(b.receive(Tag(0, 0, Kind.FORWARD, 0)), expected)


def test_a_received_array_stays_as_it_is_whatever_comes_later(pair: Pair) -> None:
    """Far more is sent than there is room for, so whatever an array would stand in is written again."""
    a, b = pair
    kept = []
    for j in range(60):
        a.send(1, Tag(0, 0, Kind.FORWARD, j), np.full((64, 256), j, np.float32))
        kept.append(b.receive(Tag(0, 0, Kind.FORWARD, j)))
    assert all((array == j).all() for j, array in enumerate(kept))


def test_arrays_of_any_size_arrive_while_both_send(pair: Pair) -> None:
    """Some are larger than the room of a link, some strided; each receiver asks for the last one first."""
    a, b = pair
    rng = np.random.default_rng(1)
    shapes = [(3, 5), (512, 1024), (700, 900), (1, 1), (64, 31), (1025, 513), (2, 2)]
    arrays: list[Array] = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    arrays[2] = arrays[2].T

    def exchange(channel: WorkerChannel, other: int) -> bool:
        tags = [Tag(0, channel.address.worker, Kind.FORWARD, j) for j in range(len(arrays))]
        for tag, array in zip(tags, arrays, strict=True):
            channel.send(other, tag, array)
        found = [channel.receive(tag._replace(stage=other)) for tag in reversed(tags)]
        return all(np.array_equal(one, array) for one, array in zip(found, reversed(arrays), strict=True))

    with ThreadPoolExecutor(2) as threads:
        results = [threads.submit(exchange, a, 1), threads.submit(exchange, b, 0)]
        assert [result.result(60) for result in results] == [True, True]


def test_two_full_links_do_not_deadlock(pair: Pair) -> None:
    """Both channels send far more than the queues hold before either receives."""
    array = np.ones((64, 256), np.float32)

    def exchange(channel: WorkerChannel, other: int) -> int:
        tags = [Tag(0, 0, Kind.FORWARD, j) for j in range(1000)]
        for tag in tags:
            channel.send(other, tag, array)
        return sum(channel.receive(tag).shape == (64, 256) for tag in tags)

    with ThreadPoolExecutor(2) as threads:
        results = [threads.submit(exchange, pair[0], 1), threads.submit(exchange, pair[1], 0)]
        assert [result.result(60) for result in results] == [1000, 1000]


@pytest.mark.parametrize("kind", [LINK, IPC, TCP], ids=["link", "ipc", "tcp"])
def test_waiting_in_vain_ends_and_says_for_what(kind: Hosts) -> None:
    a, b = _pair(kind, unattended_s=0.2)
    with pytest.raises(ReceiveTimeout, match=r"waited 0\.2 s for the gradients for 3I1"):
        a.receive(Tag(0, 3, Kind.BACKWARD_INPUT, 1))
    with pytest.raises(ReceiveTimeout, match=r"worker 1 received nothing for 0\.2 s"):
        _send_many(a, 100_000)
    a.close()
    b.close()


def _send_many(channel: WorkerChannel, count: int) -> None:
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


@pytest.mark.parametrize("kind", [LINK, IPC, TCP], ids=["link", "ipc", "tcp"])
def test_waiting_goes_on_while_somebody_looks_after_the_worker(kind: Hosts) -> None:
    a, b = _pair(kind)
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


@pytest.mark.parametrize("kind", [LINK, IPC, TCP], ids=["link", "ipc", "tcp"])
@pytest.mark.parametrize("worker", [0, 1])
def test_who_does_not_connect_is_named(kind: Hosts, worker: int) -> None:
    channels = open_channels(kind, timeout_s=0.2)
    addresses = [channel.address for channel in channels]
    with pytest.raises(ReceiveTimeout, match=rf"no connection with worker {1 - worker} on .* after 0\.2 s"):
        channels[worker].connect(addresses, room={0: 4096, 1: 4096})
    for channel in channels:
        channel.close()


@pytest.mark.parametrize("kind", [LINK, IPC], ids=["link", "ipc"])
def test_nothing_is_left_on_disk_once_all_are_connected(kind: Hosts) -> None:
    a, b = _pair(kind)
    folders = [Path(c.address.unix.removeprefix("ipc://")).parent for c in (a, b)]
    assert all(folder.exists() for folder in folders)
    for channel in (a, b):
        channel.seal()
    assert not any(folder.exists() for folder in folders)
    a.send(1, Tag(0, 0, Kind.FORWARD, 0), np.ones((2, 2)))
    np.testing.assert_array_equal(b.receive(Tag(0, 0, Kind.FORWARD, 0)), np.ones((2, 2)))
    a.close()
    b.close()


@pytest.mark.parametrize("kind", [LINK, IPC, TCP], ids=["link", "ipc", "tcp"])
def test_a_message_of_an_earlier_attempt_does_not_enter(kind: Hosts) -> None:
    """The same tag comes again from the new attempt, and only its array is received."""
    a, b = _pair(kind)
    tag, late, new = Tag(0, 0, Kind.FORWARD, 0), np.full((200, 200), 7.0), np.full((200, 200), 8.0)
    parts = [part for part in (a._links, a._zmq) if part is not None]
    for generation, array in [(0, late), (1, new)]:
        for part in parts:
            part._generation = generation
        a.send(1, tag, array)
    np.testing.assert_array_equal(b.receive(tag), new)
    assert b._arrived == {}
    a.close()
    b.close()


def test_three_workers_on_two_hosts_wait_for_both_kinds_at_once() -> None:
    channels = open_channels(Hosts(("n", "n", "m"), (True,) * 3))
    connect(channels)
    a, b, c = channels
    near, far = Tag(0, 0, Kind.FORWARD, 0), Tag(0, 0, Kind.FORWARD, 1)
    with ThreadPoolExecutor(1) as threads:
        for first, second in [(near, far), (far, near)]:
            came = threads.submit(lambda tags: [b.receive(tag)[0, 0] for tag in tags], [first, second])
            a.send(1, near, np.full((2, 2), 1.0))
            c.send(1, far, np.full((2, 2), 2.0))
            assert sorted(came.result(60)) == [1.0, 2.0]
    assert b._routes[0] is b._links
    assert b._routes[2] is b._zmq
    for channel in channels:
        channel.close()


def test_a_stranger_gets_nothing_into_a_tcp_inbox() -> None:
    a, b = _pair(TCP, unattended_s=1.0)
    assert b._zmq is not None
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
        assert 7 not in b._zmq._greeted
        stranger.close()
    context.term()
    a.close()
    b.close()


@pytest.mark.parametrize("kind", [LINK, IPC, TCP, ONE_CANNOT], ids=["link", "ipc", "tcp", "one-cannot"])
def test_who_waits_gives_up_at_once_if_another_thread_says_so(kind: Hosts) -> None:
    """One waits for an array, the other for room; so does who waits later."""
    a, b = _pair(kind, unattended_s=60.0)
    with ThreadPoolExecutor(2) as threads:
        waits: list[Future[Any]] = [
            threads.submit(b.receive, Tag(0, 9, Kind.FORWARD, 0)),  # nobody sends it
            threads.submit(_send_many, a, 1_000_000),
        ]
        for channel in (a, b):
            channel.give_up()
        for wait in waits:
            with pytest.raises(ChannelClosed):
                wait.result(20)
    with pytest.raises(ChannelClosed):
        b.receive(Tag(0, 9, Kind.FORWARD, 1))
    for channel in (a, b):
        channel.close()
        channel.give_up()  # too late, which does no harm


@pytest.mark.parametrize("kind", [LINK, IPC, TCP], ids=["link", "ipc", "tcp"])
def test_what_was_on_its_way_does_not_reach_the_channels_of_the_next_generation(kind: Hosts) -> None:
    tag, late, new = Tag(0, 0, Kind.FORWARD, 0), np.full((200, 200), 7.0), np.full((200, 200), 8.0)
    before = _open_descriptors()
    a, b = _pair(kind)
    a.send(1, tag, late)
    for channel in (a, b):
        channel.give_up()
        channel.close()
    again = open_channels(kind, generations=(2, 2))
    connect(again)
    again[0].send(1, tag, new)
    np.testing.assert_array_equal(again[1].receive(tag), new)
    assert again[1]._arrived == {}
    for channel in again:
        channel.close()
    assert _open_descriptors() == before


@pytest.mark.parametrize("kind", [LINK, IPC, TCP], ids=["link", "ipc", "tcp"])
def test_over_links_that_are_cut_nothing_is_sent_and_nothing_comes(kind: Hosts) -> None:
    before = _open_descriptors()
    a, b = _pair(kind, unattended_s=0.3)
    array = np.ones((4, 4))
    b.send(0, Tag(0, 0, Kind.FORWARD, 0), array)
    b.send(0, Tag(0, 0, Kind.FORWARD, 1), array)
    a.receive(Tag(0, 0, Kind.FORWARD, 0))
    a.cut()
    b.send(0, Tag(0, 0, Kind.FORWARD, 2), array)
    for micro_batch in range(1000):  # more than any link holds
        a.send(1, Tag(0, 1, Kind.FORWARD, micro_batch), array)
    for micro_batch in (1, 2):
        with pytest.raises(ReceiveTimeout):
            a.receive(Tag(0, 0, Kind.FORWARD, micro_batch))
    with pytest.raises(ReceiveTimeout):
        b.receive(Tag(0, 1, Kind.FORWARD, 0))
    a.give_up()
    with pytest.raises(ChannelClosed):
        a.receive(Tag(0, 0, Kind.FORWARD, 2))
    for channel in (a, b):
        channel.close()
    assert _open_descriptors() == before


def _open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_who_waits_for_a_connection_gives_up_too() -> None:
    channels = open_channels(LINK, timeout_s=60.0)
    addresses = [channel.address for channel in channels]
    with ThreadPoolExecutor(1) as threads:
        waits = threads.submit(channels[0].connect, addresses, room={1: 4096})
        channels[0].give_up()
        with pytest.raises(ChannelClosed):
            waits.result(20)
    for channel in channels:
        channel.close()
