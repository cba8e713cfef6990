"""The laws of the schedules whose stages lie in a V: for p workers with two stages each, and F = I = W.

Times are in forward passes of a stage, so that a worker computes for 6 m. With the same layers, 1F1B idles 6 (p − 1).
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.program.replay import Replay, replay
from coordinator.schedules import build, restrict
from stages.actions import Kind
from stages.errors import InvalidSchedule
from tests.examples import examples


def performed(name: str, p: int, m: int) -> Replay:
    return replay(build(name, n_stages=2 * p, n_micro_batches=m))


def idle(dry: Replay) -> set[float]:
    """Return the idle times of all workers."""
    return set(dry.idle)


sizes = st.tuples(st.integers(1, 14), st.integers(0, 30))


@settings(max_examples=examples(25, 50), deadline=None)
@given(sizes)
def test_zbv_idles_p_minus_1_with_the_memory_of_1f1b(size: tuple[int, int]) -> None:
    p, m = size[0], 2 * size[0] - 1 + size[1]
    dry = performed("zbv", p, m)
    assert idle(dry) == {p - 1}
    assert all(lane[-1].end - lane[0].start == 6 * m for lane in dry.spans)  # nobody waits in between
    assert max(dry.worker_peak_alive) <= 2 * p
    assert dry.worker_peak_alive[-1] == min(2 * p, 2 * m)


@settings(max_examples=examples(25, 50), deadline=None)
@given(sizes)
def test_v_half_keeps_half_and_idles_half(size: tuple[int, int]) -> None:
    p, m = size[0], size[0] + size[1]
    dry = performed("v-half", p, m)
    assert idle(dry) == {{1: 0, 2: 1}.get(p, 3 * p - (4 if p % 2 else 7))}
    assert max(dry.worker_peak_alive) == min(2 * m, 2 * ((p + 2) // 2))


@settings(max_examples=examples(25, 50), deadline=None)
@given(sizes)
def test_v_min_keeps_a_third_and_idles_two_thirds(size: tuple[int, int]) -> None:
    p, m = size[0], 2 + size[1]
    dry = performed("v-min", p, m)
    assert idle(dry) == {0 if p == 1 else 4 * p - (5 if p % 3 else 3)}
    assert max(dry.worker_peak_alive) <= 2 * ((p + 4) // 3)


@settings(max_examples=examples(25, 50), deadline=None)
@given(st.sampled_from(["zbv", "v-half", "v-min"]), st.integers(1, 14), st.integers(1, 40))
def test_few_micro_batches_keep_no_more_either(name: str, p: int, m: int) -> None:
    most = {"zbv": 2 * p, "v-half": 2 * ((p + 2) // 2), "v-min": 2 * ((p + 4) // 3)}[name]
    dry = performed(name, p, m)
    assert max(dry.worker_peak_alive) <= most
    assert dry.makespan <= performed("gpipe", p, m).makespan * 2  # gpipe on p stages of twice the layers


@settings(max_examples=examples(25, 50), deadline=None)
@given(sizes)
def test_dualpipev_idles_p_minus_1_and_keeps_one_more_than_zbv(size: tuple[int, int]) -> None:
    p, m = size[0], 2 * size[0] + size[1]
    dry = performed("dualpipev", p, m)
    assert idle(dry) == {p - 1}
    assert set(dry.worker_peak_alive) == {2 * p + 1}


def test_a_pair_of_dualpipev_is_a_forward_and_the_backward_right_after_it_of_the_other_stage() -> None:
    found = build("dualpipev", n_stages=8, n_micro_batches=10)
    assert found.pairs
    neighbours = [two for lane in found.lanes for two in pairwise(lane) if two[0] in found.pairs]
    assert len(neighbours) == len(found.pairs)
    for first, second in neighbours:
        assert (first.kind, second.kind) == (Kind.FORWARD, Kind.BACKWARD)
        assert first.stage + second.stage == 7
    fewer = restrict(found, 6)
    assert fewer.pairs == {first for first, second in neighbours if max(first.micro_batch, second.micro_batch) < 6}


@pytest.mark.parametrize(("stages", "workers"), [(8, 4), (7, 4), (5, 5), (9, 4)])
def test_dualpipev_with_few_micro_batches_is_one_clear_line(stages: int, workers: int) -> None:
    least = 2 * workers
    build("dualpipev", n_stages=stages, n_micro_batches=least, n_workers=workers)
    with pytest.raises(InvalidSchedule) as caught:
        build("dualpipev", n_stages=stages, n_micro_batches=least - 1, n_workers=workers)
    assert str(caught.value) == (
        f"dualpipev: {least - 1} micro-batches are too few for {workers} workers, "
        f"it needs at least two for each worker: {least}"
    )
