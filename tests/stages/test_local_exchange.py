from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from stages.actions import Kind
from stages.arrays import Array
from stages.channel import ChannelClosed, LocalExchange, ReceiveTimeout, Tag

FIRST, SECOND = Tag(0, 0, Kind.FORWARD, 0), Tag(0, 0, Kind.FORWARD, 1)


class _Clock:
    """Counts each thread's reads. A wait reads it once, and once more each time before it sleeps."""

    def __init__(self) -> None:
        self.reads: Counter[int] = Counter()
        self.changed = threading.Condition()

    def __call__(self) -> float:
        with self.changed:
            self.reads[threading.get_ident()] += 1
            self.changed.notify_all()
        return 0.0

    def wait_for_sleepers(self, threads: list[int]) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: all(self.reads[thread] >= 2 for thread in threads), 60)


def test_only_the_worker_that_waits_for_an_array_wakes() -> None:
    """With 32 workers most of a step was waking workers whose array had not come."""
    clock = _Clock()
    exchange = LocalExchange(60.0, clock)
    identities: dict[Tag, int] = {}
    known = threading.Barrier(3)

    def wait(tag: Tag) -> Array:
        identities[tag] = threading.get_ident()
        known.wait(60)
        return exchange.receive(tag)

    with ThreadPoolExecutor(2) as threads:
        first, second = (threads.submit(wait, tag) for tag in (FIRST, SECOND))
        known.wait(60)
        clock.wait_for_sleepers(list(identities.values()))
        exchange.send(0, FIRST, np.ones((1, 1)))
        assert first.result(60) == 1
        exchange.send(0, SECOND, np.ones((1, 1)))
        assert second.result(60) == 1
    assert clock.reads[identities[SECOND]] == 2, "it began to wait, slept once, and was woken by its own array"


def test_closing_wakes_all_who_wait() -> None:
    clock = _Clock()
    exchange = LocalExchange(60.0, clock)
    with ThreadPoolExecutor(2) as threads:
        waits = [threads.submit(exchange.receive, tag) for tag in (FIRST, SECOND)]
        with clock.changed:
            assert clock.changed.wait_for(lambda: sum(clock.reads.values()) >= 1 + 2 * 2, 60)
        exchange.close()
        for wait in waits:
            with pytest.raises(ChannelClosed):
                wait.result(60)


def test_waiting_in_vain_ends_and_an_array_that_came_before_is_there() -> None:
    exchange = LocalExchange(0.02)
    exchange.send(0, FIRST, np.ones((2, 2)))
    found = exchange.receive(FIRST)
    assert found.shape == (2, 2)
    assert not found.flags.writeable
    for _ in range(2):  # the second wait finds the lock that the first has left
        with pytest.raises(ReceiveTimeout, match=r"waited 0\.02 s for the activations for 0F0"):
            exchange.receive(FIRST)
    exchange.send(0, FIRST, np.ones((1, 2)))
    assert exchange.receive(FIRST).shape == (1, 2)
