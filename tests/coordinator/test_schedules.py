"""The laws of the built-in schedules, for grids of sizes and for random sizes."""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.job import schedule_names
from coordinator.job.schedule_names import fewest_micro_batches
from coordinator.program.clock import on_the_clock
from coordinator.program.replay import Replay, check, replay
from coordinator.program.table import ActionTable, repeated
from coordinator.schedules import SCHEDULES, build, default_workers, restrict, tabulate
from coordinator.schedules.greedy import even_rounds
from coordinator.schedules.zero_bubble import within_limits
from stages.actions import Kind, Program
from stages.errors import InvalidSchedule
from tests.coordinator.drawn import block, lanes
from tests.examples import examples

P, M, V = range(1, 7), range(1, 13), range(1, 4)
V_SHAPED = ("zbv", "v-half", "v-min", "dualpipev")
UNEVEN = [(stages, workers) for stages in range(1, 8) for workers in range(1, min(stages, 5) + 1)]


@cache
def performed(name: str, stages: int, m: int, workers: int) -> Replay:
    return replay(build(name, n_stages=stages, n_micro_batches=m, n_workers=workers))


def bubble(dry: Replay) -> Fraction:
    """The comparison is exact, because unit times are whole numbers."""
    return 1 - Fraction(int(sum(dry.busy))) / (dry.program.n_workers * int(dry.makespan))


# time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpipe", "1f1b"])
def test_gpipe_and_1f1b_idle_p_minus_1_of_m_plus_p_minus_1(name: str) -> None:
    for p in P:
        for m in M:
            assert bubble(performed(name, p, m, p)) == Fraction(p - 1, m + p - 1), (p, m)


@pytest.mark.parametrize("name", ["gpipe", "1f1b", "interleaved-1f1b"])
def test_with_v_stages_a_worker_the_bubble_is_v_times_smaller_for_every_m_of_at_least_p(name: str) -> None:
    for p in P:
        for m in M:
            for v in V:
                dry = performed(name, p * v, m, p)
                assert dry.makespan == 3 * (v * max(m, p) + min(m, p) - 1), (p, m, v)
                if m >= p:
                    assert bubble(dry) == Fraction(p - 1, v * m + p - 1), (p, m, v)


def test_zb_h1_idles_a_third_of_1f1b() -> None:
    for p in P:
        for m in M:
            zero_bubble, plain = performed("zb-h1", p, m, p), performed("1f1b", p, m, p)
            if m >= p:
                assert zero_bubble.idle == tuple(idle / 3 for idle in plain.idle) == (p - 1,) * p, (p, m)
            else:  # too few micro-batches to fill the gaps: p F and p I in a row, then the last worker's others
                assert zero_bubble.makespan == 2 * (p + m) - 1, (p, m)


def test_zb_h1_with_several_stages_a_worker_idles_a_third_of_interleaved() -> None:
    for p in P:
        for m in range(p, 13):
            for v in V:
                assert performed("zb-h1", p * v, m, p).makespan == 3 * v * m + p - 1, (p, m, v)


def test_in_zb_h2_no_worker_idles_between_its_first_and_its_last_action() -> None:
    for p in P:
        for m in range(2 * p - 1, 13):
            dry = performed("zb-h2", p, m, p)
            lengths = [lane[-1].end - lane[0].start for lane in dry.spans]
            assert lengths == [3 * m] * p, (p, m)
            assert [lane[0].start for lane in dry.spans] == list(range(p)), (p, m)


@pytest.mark.parametrize("m", M)
def test_however_uneven_1f1b_is_no_slower_than_gpipe_and_zb_h1_than_1f1b(m: int) -> None:
    for stages, workers in UNEVEN:
        times = [performed(name, stages, m, workers).makespan for name in ("zb-h1", "1f1b", "gpipe")]
        assert times == sorted(times), (stages, workers)


# memory ----------------------------------------------------------------------------------------------------------


def test_peaks_of_alive_micro_batches() -> None:
    for p in P:
        for m in M:
            stairs = tuple(min(m, p - s) for s in range(p))
            assert performed("gpipe", p, m, p).peak_alive == (m,) * p
            assert performed("1f1b", p, m, p).peak_alive == stairs
            assert performed("zb-h1", p, m, p).peak_saved_for_input == stairs
            assert max(performed("zb-h1", p, m, p).peak_alive) == min(m, p)
            further = performed("zb-h2", p, m, p)
            assert further.peak_saved_for_input == tuple(min(m, 2 * (p - s) - 1) for s in range(p))
            assert max(further.peak_alive) == min(m, 2 * p - 1)


@pytest.mark.parametrize("m", M)
def test_however_uneven_zb_h1_keeps_no_more_than_1f1b_and_1f1b_than_gpipe(m: int) -> None:
    for stages, workers in UNEVEN:
        kept = [max(performed(name, stages, m, workers).worker_peak_alive) for name in ("zb-h1", "1f1b", "gpipe")]
        assert kept[0] <= kept[1] <= kept[2], (stages, workers)


# order -----------------------------------------------------------------------------------------------------------

sizes = st.integers(1, 9).flatmap(lambda stages: st.tuples(st.just(stages), st.integers(1, 20), st.integers(1, stages)))


@settings(max_examples=examples(60, 150), deadline=None)
@given(name=st.sampled_from([*SCHEDULES]), size=sizes, fewer=st.integers(1, 20))
def test_any_sizes_obey_the_laws_in_fifo_order(name: str, size: tuple[int, int, int], fewer: int) -> None:
    stages, m, workers = size
    m = max(m, fewest_micro_batches(name, workers))
    made = build(name, n_stages=stages, n_micro_batches=m, n_workers=workers)
    check(made)
    assert (made.n_workers, sorted(set(made.placement))) == (workers, [*range(workers)])
    if name not in V_SHAPED:
        assert made.placement == tuple(s % workers for s in range(stages))
    for lane in made.lanes:
        for stage in {action.stage for action in lane}:
            for half in ("F", "IB", "WB"):  # a B is an I and a W
                own = [a.micro_batch for a in lane if a.stage == stage and a.kind in half]
                assert own == list(range(m)), f"{half} of stage {stage}"
    check(restrict(made, min(fewer, m)))


def test_in_a_v_worker_0_holds_the_input_and_the_loss() -> None:
    for name in V_SHAPED:
        assert build(name, n_stages=6, n_micro_batches=6).placement == (0, 1, 2, 2, 1, 0)
        assert build(name, n_stages=5, n_micro_batches=6).placement == (0, 1, 2, 1, 0)
        assert build(name, n_stages=7, n_micro_batches=6, n_workers=3).placement == (0, 1, 2, 2, 1, 0, 0)
        assert build(name, n_stages=3, n_micro_batches=6, n_workers=3).placement == (0, 1, 2)
        assert build(name, n_stages=16, n_micro_batches=16).n_workers == 8


@given(m=st.integers(1, 200), workers=st.integers(1, 20))
def test_rounds_hold_all_micro_batches_and_none_is_short(m: int, workers: int) -> None:
    rounds = even_rounds(m, workers)
    assert [j for members in rounds for j in members] == list(range(m))
    assert min(map(len, rounds)) >= min(m, workers)
    assert max(map(len, rounds)) - min(map(len, rounds)) <= 1


# whole values ----------------------------------------------------------------------------------------------------

GOLDEN = {
    "gpipe": """
        0F0 0F1 0F2 0B0 0B1 0B2
        1F0 1F1 1F2 1B0 1B1 1B2
        2F0 2F1 2F2 2B0 2B1 2B2
        """,
    "1f1b": """
        0F0 0F1 0F2 0B0 0B1 0B2
        1F0 1F1 1B0 1F2 1B1 1B2
        2F0 2B0 2F1 2B1 2F2 2B2
        """,
    "zb-h1": """
        0F0 0F1 0F2 0I0 0W0 0I1 0W1 0I2 0W2
        1F0 1F1 1I0 1F2 1I1 1W0 1I2 1W1 1W2
        2F0 2I0 2F1 2I1 2F2 2I2 2W0 2W1 2W2
        """,
    "zb-h2": """
        0F0 0F1 0F2 0I0 0W0 0I1 0W1 0I2 0W2
        1F0 1F1 1F2 1I0 1W0 1I1 1W1 1I2 1W2
        2F0 2I0 2F1 2I1 2F2 2I2 2W0 2W1 2W2
        """,
    "looped-bfs": """
        0F0 0F1 0F2 2F0 2F1 2F2 2B0 2B1 2B2 0B0 0B1 0B2
        1F0 1F1 1F2 1B0 1B1 1B2
        """,
    "zbv": """
        0F0 0F1 0F2 2F0 2I0 2W0 2F1 2I1 2W1 0I0 0W0 2F2 2I2 2W2 0I1 0W1 0I2 0W2
        1F0 1F1 1F2 1I0 1W0 1I1 1I2 1W1 1W2
        """,
    "v-half": """
        0F0 0F1 0F2 2F0 2I0 2W0 2F1 0I0 2I1 0W0 2W1 2F2 2I2 0I1 2W2 0I2 0W1 0W2
        1F0 1F1 1I0 1F2 1W0 1I1 1I2 1W1 1W2
        """,
    "v-min": """
        0F0 2F0 2I0 0F1 2W0 0I0 0W0 2F1 2I1 0F2 2W1 0I1 0W1 2F2 2I2 2W2 0I2 0W2
        1F0 1I0 1F1 1W0 1I1 1F2 1W1 1I2 1W2
        """,
    "dualpipev": """
        0F0 0F1 0F2 2F0 2I0 2W0 2F1 0F3 2B1 2F2 0B0 2B2 2F3 0B1 2B3 0I2 0W2 0I3 0W3
        1F0 1F1 1F2 1B0 1F3 1B1 1B2 1I3 1W3
        """,
    "interleaved-1f1b": """
        0F0 0F1 0F2 2F0 2B0 2F1 2B1 2F2 2B2 0B0 0B1 0B2
        1F0 1F1 1F2 1B0 1B1 1B2
        """,
}


@pytest.mark.parametrize("name", GOLDEN)
def test_three_stages_and_three_micro_batches_or_as_many_as_it_needs(name: str) -> None:
    m = max(3, fewest_micro_batches(name, default_workers(name, 3)))
    assert lanes(build(name, n_stages=3, n_micro_batches=m)) == block(GOLDEN[name])


def test_every_schedule_has_a_golden_and_a_name_for_job_files() -> None:
    assert set(GOLDEN) == set(SCHEDULES)
    assert tuple(SCHEDULES) == schedule_names.SCHEDULES


# sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["interleaved-1f1b", "looped-bfs", *V_SHAPED])
def test_schedules_with_two_stages_a_worker_take_half_as_many_workers(name: str) -> None:
    assert [default_workers(name, stages) for stages in (1, 2, 3, 4)] == [1, 1, 2, 2]
    assert [default_workers("1f1b", stages) for stages in (1, 2, 3, 4)] == [1, 2, 3, 4]
    assert build("interleaved-1f1b", n_stages=5, n_micro_batches=1).n_workers == 3


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(InvalidSchedule, match=r"'1F2B' is not a schedule.*; did you mean 1f1b\?"):
        build("1F2B", n_stages=1, n_micro_batches=1)


@pytest.mark.parametrize(("stages", "m", "workers"), [(0, 1, 1), (1, 0, 1), (2, 1, 0), (2, 1, 3)])
def test_impossible_sizes_are_named(stages: int, m: int, workers: int) -> None:
    with pytest.raises(InvalidSchedule, match=f"{stages} stages, {m} micro-batches, {workers} workers"):
        build("gpipe", n_stages=stages, n_micro_batches=m, n_workers=workers)


@pytest.mark.parametrize("m", [0, 4])
def test_a_program_cannot_be_cut_to_none_or_to_more(m: int) -> None:
    whole: Program = build("1f1b", n_stages=2, n_micro_batches=3)
    with pytest.raises(InvalidSchedule, match=f"1f1b: cannot be cut to {m} micro-batches, it has 3"):
        restrict(whole, m)


def test_cutting_leaves_the_order() -> None:
    whole = build("1f1b", n_stages=2, n_micro_batches=3)
    assert lanes(restrict(whole, 2)) == "0F0 0F1 0B0 0B1\n1F0 1B0 1F1 1B1"
    assert {action.kind for lane in whole.lanes for action in lane} == {Kind.FORWARD, Kind.BACKWARD}


@pytest.mark.parametrize("latency", [0.125, 0.25])
@pytest.mark.parametrize("p", [2, 3, 4, 6])
def test_of_steps_in_a_row_zb_h2_loses_one_round_trip_of_the_links_and_zb_h1_two(p: int, latency: float) -> None:
    """One more forward pass in flight for each worker behind, and W later: both hide the time of the links."""
    unit = np.array([1.0, 1.0, 1.0, 2.0])
    for m in (2 * p, 2 * p + 1, 4 * p):

        def step(table: ActionTable) -> float:
            times = [on_the_clock(repeated(table, steps), unit, latency=latency).makespan for steps in (5, 9)]
            return (times[1] - times[0]) / 4

        h1, h2, gpipe = (tabulate(name, n_stages=p, n_micro_batches=m) for name in ("zb-h1", "zb-h2", "gpipe"))
        assert step(h2) == 3 * m + 2 * (p - 1) * latency, m
        assert step(h1) == 3 * m + (p - 1) * (1 + 4 * latency), m
        assert step(gpipe) == 3 * (m + p - 1) + 2 * (p - 1) * latency, m
        more = 2 * np.arange(p, 0, -1)
        deeper = within_limits("deeper", p, m, np.minimum(m, more), min(m, 2 * p + 2))
        assert step(deeper) == step(h2), "what zb-h2 keeps is enough"
