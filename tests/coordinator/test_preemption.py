"""Laws of preemption, for random queues, active jobs and nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.queue.job_queue import Capacity, Queue, Waiting, choose, fits
from coordinator.queue.preemption import Active, displacement
from tests.coordinator.queues import a_job, a_node
from tests.examples import examples

NODES = st.lists(st.integers(1, 8), min_size=1, max_size=3).map(lambda cpus: [a_node(n) for n in cpus])


@st.composite
def a_waiting(draw: st.DrawFn, order: int) -> Waiting:
    """Draw a job; half of them may displace others."""
    priority = draw(st.integers(-2, 2))
    drawn = a_job(order, cpus=draw(st.integers(1, 3)), workers=draw(st.integers(1, 4)), priority=priority)
    return replace(drawn, displaces_below=priority if draw(st.booleans()) else None)


@st.composite
def jobs(draw: st.DrawFn, most: int = 8) -> list[Waiting]:
    return [draw(a_waiting(order)) for order in range(1, draw(st.integers(1, most)) + 1)]


def _active(waiting: Waiting, *, leaving: bool = False) -> Active:
    return Active(job=waiting.job, priority=waiting.priority, order=waiting.order, needs=waiting.needs, leaving=leaving)


@settings(max_examples=examples(100, 400))
@given(jobs(), st.lists(st.tuples(st.booleans(), st.booleans()), min_size=8, max_size=8), NODES)
def test_only_lower_jobs_leave_no_more_than_needed_and_the_first_fits_then(
    drawn: list[Waiting], flags: list[tuple[bool, bool]], nodes: list[Capacity]
) -> None:
    active = [_active(job, leaving=leaves) for job, (runs, leaves) in zip(drawn, flags, strict=False) if runs]
    queue = list(Queue(job for job, (runs, _) in zip(drawn, flags, strict=False) if not runs))
    found = displacement(queue, active, nodes)
    if found is None:
        return
    head = next(waiting for waiting in queue if waiting.job == found.room_for)
    going = [one for one in active if one.job in found.jobs]
    assert len(going) == len(found.jobs) > 0
    assert all(not one.leaving and one.priority < head.priority for one in going)
    assert head.displaces_below == head.priority
    assert all(not fits(ahead.needs, [], nodes) for ahead in queue[: queue.index(head)]), "those wait for more nodes"
    staying = [one.needs for one in active if not one.leaving and one not in going]
    assert fits(head.needs, staying, nodes)
    assert all(not fits(head.needs, [*staying, one.needs], nodes) for one in going), "nobody leaves in vain"


@settings(max_examples=examples(60, 300))
@given(jobs(most=7), NODES, st.randoms(use_true_random=False))
def test_every_job_ends_and_is_displaced_at_most_once_for_each_job_that_is_let_in(
    drawn: list[Waiting], nodes: list[Capacity], random: object
) -> None:
    """Jobs arrive one by one. A job that must leave does so some time later, a job that runs may end at any time. A job
    that was displaced never starts again before the one for which it made room."""
    arriving = [job for job in drawn if fits(job.needs, [], nodes)]
    by_name = {job.job: job for job in arriving}
    queue, active, let_in = Queue(), dict[str, bool](), dict[str, set[str]]()  # active: whether it leaves
    made_room, ended, turns = dict[str, str](), set[str](), 0
    pick = getattr(random, "choice")  # noqa: B009
    while len(ended) < len(by_name):
        turns += 1
        assert turns < 1000, "it goes round and round"
        for job in _turn(queue, active, by_name, nodes):
            queue.remove(job)
            active[job] = False
            assert job not in made_room or made_room[job] not in queue, "it took back the room that it had made"
        left = choose(queue, [by_name[job].needs for job in active], nodes)
        assert not left.starts
        found = displacement(queue, [_active(by_name[job], leaving=leaves) for job, leaves in active.items()], nodes)
        for job in () if found is None else found.jobs:
            assert found is not None
            assert job not in let_in.setdefault(found.room_for, set()), "twice for the same job"
            let_in[found.room_for].add(job)
            active[job], made_room[job] = True, found.room_for
        happens = [*(["arrives"] if arriving else []), *active]
        what = pick(happens)
        if what == "arrives":
            queue.add(arriving.pop(0))
        elif active.pop(what):
            queue.add(by_name[what])  # it has saved its state
        else:
            ended.add(what)


def _turn(queue: Queue, active: dict[str, bool], jobs: dict[str, Waiting], nodes: Sequence[Capacity]) -> Sequence[str]:
    return choose(queue, [jobs[job].needs for job in active], nodes).starts
