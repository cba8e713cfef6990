"""Laws of the queue, for random queues, active jobs and nodes: backfilled jobs delay no job."""

from __future__ import annotations

import heapq
import random
import re
from collections.abc import Callable, Sequence
from functools import cache
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.queue.job_queue import Capacity, Choice, Needs, Queue, Waiting, choose
from tests.coordinator.queues import a_job, a_node, reasons_of
from tests.examples import examples

Policy = Callable[[Sequence[Waiting], dict[str, Needs]], Sequence[str]]
"""(queue, active jobs) → jobs that start now."""


def _choice_on(nodes: Sequence[Capacity]) -> Policy:
    return lambda queue, active: choose(queue, list(active.values()), nodes).starts


class _FirstInFirstOut:
    """The policy without backfill, on nodes with each worker on any node that has room for it."""

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
                continue  # the job can never start here
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
    """Return when each job starts if each runs for its `seconds`; `policy` picks from the queue at each end of a
    job."""
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
    """Whether there is a place for every worker; tries all placements."""
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
    """Draw jobs in order, active jobs that fit, and nodes. Memory is short often, seldom or never."""
    most_memory, most_cpus = draw.choice([0, 0, 2, 5, 9]), 12 if most_nodes == 1 else 6
    cpus = draw.choice([[1], [2], [3], [1, 2], [2, 4], [1, 2, 2, 2, 2], [1, 2, 3, 4]])

    def needs() -> Needs:
        return Needs(workers=draw.randint(1, 4), cpus=draw.choice(cpus), memory=draw.randint(0, most_memory))

    nodes = [a_node(draw.randint(1, most_cpus), draw.randint(6, 30)) for _ in range(draw.randint(1, most_nodes))]
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
    """Whether a job starts although a job ahead of it waits."""
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


@settings(max_examples=examples(300, 1500), deadline=None)
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


@settings(max_examples=examples(500, 2000), deadline=None)
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
    assert reasons_of(jobs, other_active, other_nodes) == reasons_of(jobs, active, nodes)


@settings(max_examples=examples(400, 1000), deadline=None)
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
    if len(nodes) == 1:  # one choice takes all jobs that can start
        assert choose(left, taken, nodes).starts == ()


@settings(max_examples=200, deadline=None)
@given(priorities=st.lists(st.integers(-2, 2), max_size=30), seed=st.integers(0, 2**32))
def test_positions_are_those_of_a_sorted_list(priorities: list[int], seed: int) -> None:
    draw, queue, model = random.Random(seed), Queue(), list[Waiting]()
    for order, priority in zip(count(), priorities):
        waiting = a_job(order, priority=priority)
        queue.add(waiting)
        model.append(waiting)
        if draw.random() < 0.4:
            gone = draw.choice(model)
            model.remove(gone)
            assert queue.remove(gone.job) == gone
        model.sort(key=lambda waiting: (-waiting.priority, waiting.order))
        assert list(queue) == model
        assert [queue.position(waiting.job) for waiting in model] == list(range(1, len(model) + 1))
