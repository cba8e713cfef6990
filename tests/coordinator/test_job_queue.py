from __future__ import annotations

import heapq
import random
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.queue.job_queue import LOOK_AHEAD, Capacity, Choice, Needs, Queue, Waiting, choose

MIB, GIB = 2**20, 2**30


def _job(order: int, cpus: int = 1, workers: int = 1, memory: int = 0, priority: int = 0) -> Waiting:
    needs = Needs(workers=workers, cpus=cpus, memory=memory)
    return Waiting(job=f"j{order}", priority=priority, order=order, needs=needs)


def _needs(cpus: int, memory: int = 0, workers: int = 1) -> Needs:
    return Needs(workers=workers, cpus=cpus, memory=memory)


def _node(cpus: int, memory: int = GIB) -> Capacity:
    return Capacity(cpus=cpus, memory=memory)


def _reasons(jobs: Sequence[Waiting], active: Sequence[Needs], nodes: Sequence[Capacity]) -> list[str]:
    """What `list` shows once the jobs of the choice have left the queue."""
    choice = choose(jobs, active, nodes)
    left = [waiting for waiting in jobs if waiting.job not in choice.starts]
    return [choice.explain(waiting, position) for position, waiting in enumerate(left, 1)]


# Worked examples


def test_the_queue_is_in_the_order_of_turns() -> None:
    queue = Queue([_job(1), _job(2), _job(3, priority=5)])
    queue.add(_job(4, priority=5))
    assert [waiting.job for waiting in queue] == ["j3", "j4", "j1", "j2"]
    assert [queue.position(job) for job in ("j3", "j4", "j1", "j2")] == [1, 2, 3, 4]
    assert queue.remove("j4") == _job(4, priority=5)
    assert (len(queue), "j4" in queue, queue.position("j1")) == (3, False, 2)
    with pytest.raises(KeyError):
        queue.position("j4")


def test_jobs_start_in_order_as_long_as_they_fit() -> None:
    assert choose([_job(n) for n in range(5)], [_needs(1)], [_node(2), _node(2)]).starts == ("j0", "j1", "j2")
    assert choose([], [], [_node(2)]).starts == ()
    assert choose([_job(1)], [], []).starts == ()


def test_slack_that_no_end_of_a_job_makes_useful_is_given_away() -> None:
    # 5 CPUs, 3 taken: the head waits for those 3, and can never use the other 2
    head, small, smaller = _job(1, cpus=3), _job(2, cpus=2), _job(3, cpus=1)
    assert choose([head, small, smaller], [_needs(3)], [_node(5)]).starts == ("j2",)
    assert choose([head, smaller, small], [_needs(3)], [_node(5)]).starts == ("j3",)
    assert choose([head, smaller, _job(4)], [_needs(3)], [_node(5)]).starts == ("j3", "j4")
    # where the 3 are of three jobs, the first end of one lets the head start
    assert choose([head, small, smaller], [_needs(1)] * 3, [_node(5)]).starts == ()


def test_jobs_ahead_that_end_up_running_together_count_as_well() -> None:
    # after j1 (3 of 6 CPUs) there are 3 for j2: j3 would take the one that j2 needs beside j1
    assert choose([_job(1, cpus=3), _job(2, cpus=3), _job(3)], [_needs(4)], [_node(6)]).starts == ()
    assert choose([_job(1, cpus=3), _job(3)], [_needs(4)], [_node(6)]).starts == ("j3",)


def test_a_job_that_can_never_fit_holds_nobody_up() -> None:
    jobs = [_job(1, cpus=8), _job(2), _job(3, workers=3), _job(4)]
    assert choose(jobs, [], [_node(2)]).starts == ("j2", "j4")


def test_nobody_passes_where_memory_could_delay_the_head() -> None:
    head, small = _job(1, cpus=3, memory=600 * MIB), _job(2, memory=100 * MIB)
    assert choose([head, small], [_needs(3, 100 * MIB)], [_node(5, GIB)]).starts == ("j2",)
    assert choose([head, small], [_needs(3, 500 * MIB)], [_node(5, 800 * MIB)]).starts == ()


def test_over_several_nodes_jobs_pass_where_workers_are_of_one_size_only() -> None:
    nodes = [_node(3), _node(4)]  # 7 CPUs, of which workers of 2 CPUs can have 6
    active, small = [_needs(2, workers=2)], _job(2, cpus=2)
    assert choose([_job(1, cpus=2, workers=2), small], active, nodes).starts == ("j2",)
    assert choose([_job(1, cpus=4), small], active, [_node(4), _node(4)]).starts == ("j1",)
    assert choose([_job(1, cpus=4, workers=2), small], active, [_node(4), _node(4)]).starts == ()
    # single CPUs, one on each node, would leave room for two of the head's three workers
    running, nodes = [_needs(2, workers=3)], [_node(4), _node(4)]
    assert choose([_job(1, cpus=2, workers=3), _job(2, workers=2)], running, nodes).starts == ()
    assert choose([_job(1, cpus=2, workers=3), small], running, nodes).starts == ("j2",)
    # the head takes single CPUs: a larger worker behind it may pass
    assert choose([_job(1, workers=7), small], [_needs(2, workers=2)], [_node(4), _node(4)]).starts == ()
    assert choose([_job(1, workers=4), small], [_needs(5)], [_node(6), _node(2)]).starts == ("j2",)


def test_single_cpus_are_counted_rightly_where_first_fit_decreasing_finds_no_place_for_the_active_workers() -> None:
    active = [_needs(4), _needs(3), _needs(3), _needs(2)]  # 3 + 2 and 4 + 3; first-fit-decreasing: 4 and 3 + 3, no 2
    assert choose([_job(1)], active, [_node(5), _node(7), _node(1)]).starts == ("j1",)
    assert _reasons([_job(1, cpus=2)], active, [_node(5), _node(7), _node(1), _node(1)]) == [
        "position 1: waits until an active job ends"
    ]


def test_reasons_read_well() -> None:
    four = [_job(1, cpus=4, workers=2), _job(2, cpus=5), _job(3, cpus=4), _job(4)]
    assert _reasons(four, [_needs(7)], [_node(8)]) == [
        "position 1: needs 8 CPUs, 1 of 8 free",
        "position 2: needs 5 CPUs, 1 free; 1 job ahead",
        "position 3: needs 4 CPUs, 1 free; 2 jobs ahead",
        "position 4: would fit, but must not delay job j1 ahead",
    ]
    assert _reasons([_job(1, workers=8), _job(2), _job(3)], [_needs(1)], [_node(2)]) == [
        "needs 8 CPUs, the whole cluster has 2: waits for more nodes",
        "position 2: needs 1 CPU, 0 free; 1 job ahead",
    ]
    assert _reasons([_job(1)], [], []) == ["waits for Ray to start"]
    assert _reasons([_job(1)], [], [_node(0)]) == ["needs 1 CPU, the whole cluster has 0: waits for more nodes"]
    assert choose([_job(1)], [], [_node(1)]).explain(_job(1), 1) == "starts now"


def test_reasons_name_memory_and_nodes_where_these_lack() -> None:
    big = [_job(1, workers=2, memory=GIB + 1), _job(2, memory=700 * MIB)]
    assert _reasons(big, [_needs(1, 3 * GIB // 2)], [_node(4, 3 * GIB)]) == [
        "position 1: needs 2.1 GiB of memory, 1.5 GiB of 3 GiB free",
        "position 2: would fit, but must not delay job j1 ahead",
    ]
    assert _reasons(big, [_needs(2, 3 * GIB - 600 * MIB)], [_node(3, 3 * GIB)]) == [
        "position 1: needs 2 CPUs, 1 of 3 free",
        "position 2: needs 700 MiB of memory, 600 MiB free; 1 job ahead",
    ]
    assert _reasons([_job(1, cpus=2, memory=MIB)], [_needs(1, workers=2)], [_node(2), _node(2)]) == []
    assert _reasons([_job(1, cpus=2, memory=MIB)], [_needs(2)], [_node(3), _node(2), _node(1)]) == []
    assert _reasons([_job(1, cpus=2, memory=MIB)], [_needs(2)], [_node(3), _node(1)]) == [
        "position 1: free room is scattered over nodes: holds 0 of 1 worker of 2 CPUs and 1 MiB each"
    ]
    assert _reasons([_job(1)], [_needs(1, workers=2), _needs(2, 5)], [_node(3), _node(2, 4)]) == []
    assert _reasons([_job(1)], [_needs(1, 2 * GIB)], [_node(2)]) == ["position 1: waits until an active job ends"]
    never = [
        _job(1, memory=2 * GIB + 1),
        _job(2, cpus=3),
        _job(3, memory=3 * GIB // 2),
        _job(4, workers=4, memory=400 * MIB),
        _job(5, cpus=2, workers=2),
    ]
    assert _reasons(never, [], [_node(3, GIB), _node(1, GIB)]) == [
        "needs 2.1 GiB of memory, the whole cluster has 2 GiB: waits for more nodes",
        "a worker needs 1.5 GiB of memory, the largest node has 1 GiB: waits for more nodes",
        "the empty cluster holds 3 of 4 workers of 1 CPU and 400 MiB each: waits for more nodes",
        "the empty cluster holds 1 of 2 workers of 2 CPUs and 0 B each: waits for more nodes",
    ]
    assert _reasons([_job(1, cpus=2)], [], [_node(1), _node(1)]) == [
        "a worker needs 2 CPUs, the largest node has 1: waits for more nodes"
    ]


def test_a_full_cluster_looks_at_nobody_and_others_at_a_bounded_number() -> None:
    looked = 0

    def queue(cpus: int) -> Iterator[Waiting]:
        nonlocal looked
        for n in range(10_000):
            looked = n + 1
            yield _job(n, cpus=cpus)

    assert choose(queue(1), [_needs(1)] * 64, [_node(64)]).starts == ()
    assert looked == 1
    blocked = choose(queue(3), [_needs(3)], [_node(5)])  # 2 CPUs to give away, and nobody wants them
    assert (blocked.starts, looked) == ((), LOOK_AHEAD)
    assert blocked.explain(_job(5000), 5001) == "position 5,001: would fit, but backfill looks past 1,000 jobs only"
    assert choose(queue(3), [_needs(1)], [_node(3)]).starts == ()  # nothing to give away
    assert looked == 1


# Laws

Policy = Callable[[Sequence[Waiting], dict[str, Needs]], Sequence[str]]
"""(queue, active jobs) → jobs that start now."""


def _choice_on(nodes: Sequence[Capacity]) -> Policy:
    return lambda queue, active: choose(queue, list(active.values()), nodes).starts


class _FirstInFirstOut:
    """The policy without backfill, on nodes where each worker is put anywhere that holds it."""

    def __init__(self, nodes: Sequence[Capacity], seed: int) -> None:
        self._nodes, self._spare, self._random = nodes, list(nodes), random.Random(seed)
        self._places: dict[str, list[tuple[int, Needs]]] = {}

    def place(self, job: str, needs: Needs) -> bool:
        if not _holds(self._spare, needs):
            return False
        self._places[job] = []
        for _ in range(needs.workers):
            node = self._random.choice([n for n, spare in enumerate(self._spare) if spare.workers(needs)])
            self._take(node, needs.cpus, needs.memory)
            self._places[job].append((node, needs))
        return True

    def __call__(self, queue: Sequence[Waiting], active: dict[str, Needs]) -> list[str]:
        for job in [job for job in self._places if job not in active]:
            for node, needs in self._places.pop(job):
                self._take(node, -needs.cpus, -needs.memory)
        chosen = list[str]()
        for waiting in queue:
            if not _holds(self._nodes, waiting.needs):
                continue  # it can never start here
            if not self.place(waiting.job, waiting.needs):
                break
            chosen.append(waiting.job)
        return chosen

    def _take(self, node: int, cpus: int, memory: int) -> None:
        spare = self._spare[node]
        self._spare[node] = Capacity(cpus=spare.cpus - cpus, memory=spare.memory - memory)


def _holds(nodes: Sequence[Capacity], needs: Needs) -> bool:
    return sum(node.workers(needs) for node in nodes) >= needs.workers


def _start_times(
    jobs: Sequence[Waiting], active: dict[str, Needs], seconds: dict[str, float], policy: Policy
) -> dict[str, float]:
    """When each job starts if each runs for its `seconds`; `policy` picks from the queue at each end of a job."""
    active, queue, starts, now = dict(active), list(jobs), dict[str, float](), 0.0
    ends = [(seconds[job], job) for job in active]
    heapq.heapify(ends)
    while True:
        chosen = policy(queue, active)
        for waiting in [waiting for waiting in queue if waiting.job in chosen]:
            queue.remove(waiting)
            active[waiting.job], starts[waiting.job] = waiting.needs, now
            heapq.heappush(ends, (now + seconds[waiting.job], waiting.job))
        if not ends or ends[0][0] == float("inf"):
            return starts
        now = ends[0][0]
        while ends and ends[0][0] == now:
            del active[heapq.heappop(ends)[1]]


def _packs(workers: Sequence[Needs], nodes: Sequence[Capacity]) -> bool:
    """Whether there is a place for every worker, by trying all."""
    single = sorted([(needs.cpus, needs.memory) for needs in workers for _ in range(needs.workers)], reverse=True)

    @cache
    def place(n: int, room: tuple[tuple[int, int], ...]) -> bool:
        if n == len(single):
            return True
        cpus, memory = single[n]
        return any(
            place(n + 1, tuple(sorted((*room[:k], (free_cpus - cpus, free_memory - memory), *room[k + 1 :]))))
            for k, (free_cpus, free_memory) in enumerate(room)
            if cpus <= free_cpus and memory <= free_memory
        )

    return place(0, tuple(sorted((node.cpus, node.memory) for node in nodes)))


State = tuple[list[Waiting], list[Needs], list[Capacity]]


def _state(draw: random.Random, most_nodes: int) -> State:
    """Jobs in order, active jobs for which there is a place, nodes. Memory lacks often, seldom or never."""
    most_memory, most_cpus = draw.choice([0, 0, 2, 5, 9]), 12 if most_nodes == 1 else 6
    cpus = draw.choice([[1], [2], [3], [1, 2], [2, 4], [1, 2, 2, 2, 2], [1, 2, 3, 4]])

    def needs() -> Needs:
        return Needs(workers=draw.randint(1, 4), cpus=draw.choice(cpus), memory=draw.randint(0, most_memory))

    nodes = [_node(draw.randint(1, most_cpus), draw.randint(6, 30)) for _ in range(draw.randint(1, most_nodes))]
    placed = _FirstInFirstOut(nodes, draw.getrandbits(32))
    active = [more for n, more in enumerate(needs() for _ in range(draw.randint(0, 5))) if placed.place(f"a{n}", more)]
    jobs = [
        Waiting(job=f"j{order}", priority=draw.randint(0, 1), order=order, needs=needs())
        for order in range(draw.randint(0, 8))
    ]
    return list(Queue(jobs)), active, nodes


def _states(most_nodes: int = 3) -> st.SearchStrategy[State]:
    return st.integers(0, 2**32).map(lambda seed: _state(random.Random(seed), most_nodes))


def _passes(state: State) -> bool:
    """Whether a job starts although one ahead of it waits for its turn."""
    jobs, active, nodes = state
    starts = choose(jobs, active, nodes).starts
    in_turn = [waiting.job for waiting in jobs if _holds(nodes, waiting.needs)]
    return starts != tuple(in_turn[: len(starts)])


def _states_where_a_job_passes(most_nodes: int) -> st.SearchStrategy[State]:
    def first(seed: int) -> State:
        draw = random.Random(seed)
        return next(state for state in iter(lambda: _state(draw, most_nodes), None) if _passes(state))

    return st.integers(0, 2**32).map(first)


def _seconds(jobs: Sequence[Waiting], active: Sequence[Needs], seed: int) -> tuple[dict[str, Needs], dict[str, float]]:
    draw = random.Random(seed)
    running = {f"a{n}": needs for n, needs in enumerate(active)}
    return running, {job: float(draw.randint(1, 6)) for job in (*running, *(waiting.job for waiting in jobs))}


def _started(jobs: Sequence[Waiting], choice: Choice) -> list[Waiting]:
    return [waiting for waiting in jobs if waiting.job in choice.starts]


@settings(max_examples=1500, deadline=None)
@given(state=st.one_of(_states_where_a_job_passes(1), _states_where_a_job_passes(4)), seeds=st.integers(0, 2**32))
def test_a_job_that_passes_delays_nobody_ahead_wherever_workers_are_and_however_long_it_runs(
    state: State, seeds: int
) -> None:
    jobs, active, nodes = state
    started = _started(jobs, choose(jobs, active, nodes))
    for seed in range(seeds, seeds + 5):
        running, seconds = _seconds(jobs, active, seed)
        for passing in started:
            ahead = [waiting for waiting in jobs[: jobs.index(passing)] if waiting not in started]
            without, with_it = _FirstInFirstOut(nodes, seed), _FirstInFirstOut(nodes, seed)
            if not all(policy.place(*job) for policy in (without, with_it) for job in running.items()):
                break  # these places are in the way of an active job
            if not with_it.place(passing.job, passing.needs):
                break
            longer = running | {passing.job: passing.needs}, seconds | {passing.job: float("inf")}
            assert _start_times(ahead, *longer, with_it) == _start_times(ahead, running, seconds, without)
            running[passing.job] = passing.needs


@settings(max_examples=2000, deadline=None)
@given(state=_states(most_nodes=1), seed=st.integers(0, 2**32))
def test_on_one_node_nobody_ever_starts_later_than_without_backfill(state: State, seed: int) -> None:
    jobs, active, nodes = state
    running, seconds = _seconds(jobs, active, seed)
    in_turn = _FirstInFirstOut(nodes, seed)
    assert all(in_turn.place(*job) for job in running.items())
    without = _start_times(jobs, running, seconds, in_turn)
    with_it = _start_times(jobs, running, seconds, _choice_on(nodes))
    assert with_it.keys() == without.keys()
    assert all(with_it[job] <= without[job] for job in without)


@settings(max_examples=500, deadline=None)
@given(state=_states(), seed=st.integers(0, 2**32))
def test_every_job_that_the_cluster_can_hold_starts_in_the_end_and_never_is_more_taken_than_there_is(
    state: State, seed: int
) -> None:
    jobs, active, nodes = state

    def policy(queue: Sequence[Waiting], active: dict[str, Needs]) -> Sequence[str]:
        choice = choose(queue, list(active.values()), nodes)
        started = [*active.values(), *(waiting.needs for waiting in _started(queue, choice))]
        assert sum(needs.total_cpus for needs in started) <= sum(node.cpus for node in nodes)
        assert sum(needs.total_memory for needs in started) <= sum(node.memory for node in nodes)
        assert _packs(started, nodes)
        return choice.starts

    starts = _start_times(jobs, *_seconds(jobs, active, seed), policy)
    assert set(starts) == {waiting.job for waiting in jobs if _packs([waiting.needs], nodes)}


@settings(max_examples=500, deadline=None)
@given(state=_states())
def test_turns_are_kept_and_the_head_starts_whenever_it_fits(state: State) -> None:
    jobs, active, nodes = state
    starts = choose(jobs, active, nodes).starts
    assert list(starts) == [waiting.job for waiting in jobs if waiting.job in starts]
    head = next((waiting for waiting in jobs if _packs([waiting.needs], nodes)), None)
    sizes = {(needs.cpus, needs.memory) for needs in [*active, *([head.needs] if head else [])]}
    if head and (len(nodes) == 1 or len(sizes) == 1):  # where packing is exact
        assert (head.job in starts) == _packs([*active, head.needs], nodes)
    if len(nodes) == 1:
        in_turn, running = _FirstInFirstOut(nodes, 0), {f"a{n}": needs for n, needs in enumerate(active)}
        assert all(in_turn.place(*job) for job in running.items())
        assert set(in_turn(jobs, running)) <= set(starts)


@settings(max_examples=300, deadline=None)
@given(state=_states(), seed=st.integers(0, 2**32))
def test_the_order_of_active_jobs_and_of_nodes_is_irrelevant(state: State, seed: int) -> None:
    jobs, active, nodes = state
    shuffled = random.Random(seed)
    other_active, other_nodes = shuffled.sample(active, len(active)), shuffled.sample(nodes, len(nodes))
    assert choose(jobs, other_active, other_nodes).starts == choose(jobs, active, nodes).starts
    assert _reasons(jobs, other_active, other_nodes) == _reasons(jobs, active, nodes)


@settings(max_examples=1000, deadline=None)
@given(state=_states())
def test_reasons_are_true(state: State) -> None:
    jobs, active, nodes = state
    choice = choose(jobs, active, nodes)
    taken = [*active, *(waiting.needs for waiting in _started(jobs, choice))]
    cpus = sum(node.cpus for node in nodes)
    free = cpus - sum(needs.total_cpus for needs in taken)
    left = [waiting for waiting in jobs if waiting.job not in choice.starts]
    for position, waiting in enumerate(left, 1):
        reason, needs = choice.explain(waiting, position), waiting.needs
        ahead = [job.job for job in left[: position - 1]]
        assert ("more nodes" in reason) == (not _packs([needs], nodes))
        if match := re.search(r"needs (\d+) CPUs?, (\d+)(?: of (\d+))? free", reason):
            assert (int(match[1]), int(match[2]), int(match[3] or cpus)) == (needs.total_cpus, free, cpus)
            assert needs.total_cpus > free
        if match := re.search(r"would fit, but must not delay job (\w+) ahead", reason):
            assert match[1] in ahead
            assert _packs([*taken, needs], nodes)
        elif "more nodes" not in reason:
            assert not (len(nodes) == 1 and _packs([*taken, needs], nodes))
            assert position == 1 or reason.endswith(f"; {position - 1} job{'s' * (position > 2)} ahead")
        assert reason.startswith(f"position {position}: ") or "more nodes" in reason
    assert all(choice.explain(waiting, 1) == "starts now" for waiting in _started(jobs, choice))
    if len(nodes) == 1:  # one choice takes all that can start
        assert choose(left, taken, nodes).starts == ()


@settings(max_examples=200, deadline=None)
@given(priorities=st.lists(st.integers(-2, 2), max_size=30), seed=st.integers(0, 2**32))
def test_positions_are_those_of_a_sorted_list(priorities: list[int], seed: int) -> None:
    draw, queue, model = random.Random(seed), Queue(), list[Waiting]()
    for order, priority in zip(count(), priorities):
        waiting = _job(order, priority=priority)
        queue.add(waiting)
        model.append(waiting)
        if draw.random() < 0.4:
            gone = draw.choice(model)
            model.remove(gone)
            assert queue.remove(gone.job) == gone
        model.sort(key=lambda waiting: (-waiting.priority, waiting.order))
        assert list(queue) == model
        assert [queue.position(waiting.job) for waiting in model] == list(range(1, len(model) + 1))
