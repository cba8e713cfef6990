"""The queue by example: which jobs start, which are backfilled, and the reasons why others wait."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from coordinator.queue.job_queue import LOOK_AHEAD, Queue, Waiting, choose
from tests.coordinator.queues import GIB, MIB, a_job, a_node, needs_of, reasons_of


def test_the_queue_is_in_the_order_of_turns() -> None:
    queue = Queue([a_job(1), a_job(2), a_job(3, priority=5)])
    queue.add(a_job(4, priority=5))
    assert [waiting.job for waiting in queue] == ["j3", "j4", "j1", "j2"]
    assert [queue.position(job) for job in ("j3", "j4", "j1", "j2")] == [1, 2, 3, 4]
    assert queue.remove("j4") == a_job(4, priority=5)
    assert (len(queue), "j4" in queue, queue.position("j1")) == (3, False, 2)
    with pytest.raises(KeyError):
        queue.position("j4")


def test_jobs_start_in_order_as_long_as_they_fit() -> None:
    assert choose([a_job(n) for n in range(5)], [needs_of(1)], [a_node(2), a_node(2)]).starts == ("j0", "j1", "j2")
    assert choose([], [], [a_node(2)]).starts == ()
    assert choose([a_job(1)], [], []).starts == ()


def test_slack_that_no_end_of_a_job_makes_useful_is_given_away() -> None:
    # 5 CPUs, 3 taken: the head waits for these 3, and can never use the other 2
    head, small, smaller = a_job(1, cpus=3), a_job(2, cpus=2), a_job(3, cpus=1)
    assert choose([head, small, smaller], [needs_of(3)], [a_node(5)]).starts == ("j2",)
    assert choose([head, smaller, small], [needs_of(3)], [a_node(5)]).starts == ("j3",)
    assert choose([head, smaller, a_job(4)], [needs_of(3)], [a_node(5)]).starts == ("j3", "j4")
    # if three jobs take the 3, the head starts as soon as one of them ends
    assert choose([head, small, smaller], [needs_of(1)] * 3, [a_node(5)]).starts == ()


def test_jobs_ahead_that_end_up_running_together_count_as_well() -> None:
    # after j1 (3 of 6 CPUs) there are 3 for j2: j3 would take the one that j2 needs beside j1
    assert choose([a_job(1, cpus=3), a_job(2, cpus=3), a_job(3)], [needs_of(4)], [a_node(6)]).starts == ()
    assert choose([a_job(1, cpus=3), a_job(3)], [needs_of(4)], [a_node(6)]).starts == ("j3",)


def test_a_job_that_can_never_fit_holds_nobody_up() -> None:
    jobs = [a_job(1, cpus=8), a_job(2), a_job(3, workers=3), a_job(4)]
    assert choose(jobs, [], [a_node(2)]).starts == ("j2", "j4")


def test_nobody_passes_where_memory_could_delay_the_head() -> None:
    head, small = a_job(1, cpus=3, memory=600 * MIB), a_job(2, memory=100 * MIB)
    assert choose([head, small], [needs_of(3, 100 * MIB)], [a_node(5, GIB)]).starts == ("j2",)
    assert choose([head, small], [needs_of(3, 500 * MIB)], [a_node(5, 800 * MIB)]).starts == ()


def test_over_several_nodes_jobs_pass_where_workers_are_of_one_size_only() -> None:
    nodes = [a_node(3), a_node(4)]  # 7 CPUs, of which workers of 2 CPUs can have 6
    active, small = [needs_of(2, workers=2)], a_job(2, cpus=2)
    assert choose([a_job(1, cpus=2, workers=2), small], active, nodes).starts == ("j2",)
    assert choose([a_job(1, cpus=4), small], active, [a_node(4), a_node(4)]).starts == ("j1",)
    assert choose([a_job(1, cpus=4, workers=2), small], active, [a_node(4), a_node(4)]).starts == ()
    # single CPUs, one on each node, would leave room for two of the head's three workers
    running, nodes = [needs_of(2, workers=3)], [a_node(4), a_node(4)]
    assert choose([a_job(1, cpus=2, workers=3), a_job(2, workers=2)], running, nodes).starts == ()
    assert choose([a_job(1, cpus=2, workers=3), small], running, nodes).starts == ("j2",)
    # the head takes single CPUs: a job behind it with larger workers may be backfilled
    assert choose([a_job(1, workers=7), small], [needs_of(2, workers=2)], [a_node(4), a_node(4)]).starts == ()
    assert choose([a_job(1, workers=4), small], [needs_of(5)], [a_node(6), a_node(2)]).starts == ("j2",)


def test_single_cpus_are_counted_rightly_where_first_fit_decreasing_finds_no_place_for_the_active_workers() -> None:
    active = [
        needs_of(4),
        needs_of(3),
        needs_of(3),
        needs_of(2),
    ]  # 3 + 2 and 4 + 3; first-fit-decreasing: 4 and 3 + 3
    assert choose([a_job(1)], active, [a_node(5), a_node(7), a_node(1)]).starts == ("j1",)
    assert reasons_of([a_job(1, cpus=2)], active, [a_node(5), a_node(7), a_node(1), a_node(1)]) == [
        "position 1: waits until an active job ends"
    ]


def test_reasons_read_well() -> None:
    four = [a_job(1, cpus=4, workers=2), a_job(2, cpus=5), a_job(3, cpus=4), a_job(4)]
    assert reasons_of(four, [needs_of(7)], [a_node(8)]) == [
        "position 1: needs 8 CPUs, 1 of 8 free",
        "position 2: needs 5 CPUs, 1 free; 1 job ahead",
        "position 3: needs 4 CPUs, 1 free; 2 jobs ahead",
        "position 4: would fit, but must not delay job j1 ahead",
    ]
    assert reasons_of([a_job(1, workers=8), a_job(2), a_job(3)], [needs_of(1)], [a_node(2)]) == [
        "needs 8 CPUs, the whole cluster has 2: waits for more nodes",
        "position 2: needs 1 CPU, 0 free; 1 job ahead",
    ]
    assert reasons_of([a_job(1)], [], []) == ["waits for Ray to start"]
    assert reasons_of([a_job(1)], [], [a_node(0)]) == ["needs 1 CPU, the whole cluster has 0: waits for more nodes"]
    assert choose([a_job(1)], [], [a_node(1)]).explain(a_job(1), 1) == "starts now"


def test_reasons_name_memory_and_nodes_where_these_lack() -> None:
    big = [a_job(1, workers=2, memory=GIB + 1), a_job(2, memory=700 * MIB)]
    assert reasons_of(big, [needs_of(1, 3 * GIB // 2)], [a_node(4, 3 * GIB)]) == [
        "position 1: needs 2.1 GiB of memory, 1.5 GiB of 3 GiB free",
        "position 2: would fit, but must not delay job j1 ahead",
    ]
    assert reasons_of(big, [needs_of(2, 3 * GIB - 600 * MIB)], [a_node(3, 3 * GIB)]) == [
        "position 1: needs 2 CPUs, 1 of 3 free",
        "position 2: needs 700 MiB of memory, 600 MiB free; 1 job ahead",
    ]
    assert reasons_of([a_job(1, cpus=2, memory=MIB)], [needs_of(1, workers=2)], [a_node(2), a_node(2)]) == []
    assert reasons_of([a_job(1, cpus=2, memory=MIB)], [needs_of(2)], [a_node(3), a_node(2), a_node(1)]) == []
    assert reasons_of([a_job(1, cpus=2, memory=MIB)], [needs_of(2)], [a_node(3), a_node(1)]) == [
        "position 1: free room is scattered over nodes: holds 0 of 1 worker of 2 CPUs and 1 MiB each"
    ]
    assert reasons_of([a_job(1)], [needs_of(1, workers=2), needs_of(2, 5)], [a_node(3), a_node(2, 4)]) == []
    assert reasons_of([a_job(1)], [needs_of(1, 2 * GIB)], [a_node(2)]) == ["position 1: waits until an active job ends"]
    never = [
        a_job(1, memory=2 * GIB + 1),
        a_job(2, cpus=3),
        a_job(3, memory=3 * GIB // 2),
        a_job(4, workers=4, memory=400 * MIB),
        a_job(5, cpus=2, workers=2),
    ]
    assert reasons_of(never, [], [a_node(3, GIB), a_node(1, GIB)]) == [
        "needs 2.1 GiB of memory, the whole cluster has 2 GiB: waits for more nodes",
        "a worker needs 1.5 GiB of memory, the largest node has 1 GiB: waits for more nodes",
        "the empty cluster holds 3 of 4 workers of 1 CPU and 400 MiB each: waits for more nodes",
        "the empty cluster holds 1 of 2 workers of 2 CPUs and 0 B each: waits for more nodes",
    ]
    assert reasons_of([a_job(1, cpus=2)], [], [a_node(1), a_node(1)]) == [
        "a worker needs 2 CPUs, the largest node has 1: waits for more nodes"
    ]


def test_a_full_cluster_looks_at_nobody_and_others_at_a_bounded_number() -> None:
    looked = 0

    def queue(cpus: int) -> Iterator[Waiting]:
        nonlocal looked
        for n in range(10_000):
            looked = n + 1
            yield a_job(n, cpus=cpus)

    assert choose(queue(1), [needs_of(1)] * 64, [a_node(64)]).starts == ()
    assert looked == 1
    blocked = choose(queue(3), [needs_of(3)], [a_node(5)])  # 2 CPUs to give away, and no job takes them
    assert (blocked.starts, looked) == ((), LOOK_AHEAD)
    why = "position 5,001: would fit, but backfill considers only 1,000 waiting jobs"
    assert blocked.explain(a_job(5000), 5001) == why
    assert choose(queue(3), [needs_of(1)], [a_node(3)]).starts == ()  # nothing to give away
    assert looked == 1
