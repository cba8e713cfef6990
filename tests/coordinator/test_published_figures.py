"""Figures of papers and other programs, with F = I = W. docs/schedules.md has them with the commands."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest

from coordinator.program.clock import Timed, as_papers_count, as_workers_do
from coordinator.program.kept import kept
from coordinator.program.table import ActionTable
from coordinator.schedules import tabulate


def bubble(name: str, p: int, m: int, *, v: int = 1, of: Callable[[ActionTable], Timed] = as_papers_count) -> Fraction:
    """Return the idle share of p workers with v stages each, exactly: unit times are whole numbers."""
    timed = of(tabulate(name, n_stages=v * p, n_micro_batches=m, n_workers=p))
    return 1 - Fraction(int(sum(timed.busy))) / (p * int(timed.makespan))


@pytest.mark.parametrize(
    ("name", "p", "m", "v", "published"),
    [
        ("1f1b", 8, 32, 1, Fraction(7, 39)),
        ("interleaved-1f1b", 8, 32, 2, Fraction(7, 71)),
        ("looped-bfs", 8, 32, 2, Fraction(7, 71)),
        ("zb-h1", 8, 32, 1, Fraction(7, 103)),
        ("zbv", 8, 32, 2, Fraction(7, 199)),
        ("1f1b", 4, 6, 1, Fraction(3, 9)),
        ("zb-h1", 4, 6, 1, Fraction(3, 21)),
        ("zbv", 4, 6, 2, Fraction(3, 39)),
    ],
)
def test_bubbles(name: str, p: int, m: int, v: int, published: Fraction) -> None:
    assert bubble(name, p, m, v=v) == published


@pytest.mark.parametrize(("p", "m", "published"), [(8, 32, Fraction(14, 206)), (4, 10, Fraction(6, 66))])
def test_the_bubble_of_dualpipev_counted_with_its_pairs_as_one(p: int, m: int, published: Fraction) -> None:
    assert bubble("dualpipev", p, m, v=2) == published
    assert bubble("dualpipev", p, m, v=2, of=as_workers_do) == Fraction(p - 1, 6 * m + p - 1)


@pytest.mark.parametrize(
    ("name", "v", "performed"),
    [
        ("gpipe", 1, Fraction(14, 110)),
        ("1f1b", 1, Fraction(14, 110)),
        ("interleaved-1f1b", 2, Fraction(14, 206)),
        ("looped-bfs", 2, Fraction(14, 206)),
    ],
)
def test_workers_idle_less_because_they_send_the_input_gradient_first(name: str, v: int, performed: Fraction) -> None:
    """8 workers, 32 micro-batches. All figures of `show`, `lab`, `plan` and of runs are these."""
    assert bubble(name, 8, 32, v=v, of=as_workers_do) == performed


def test_the_bubble_rate_of_the_zero_bubble_papers() -> None:
    """1 − m (F + I + W) / the longest time from a worker's first action to its last one."""
    rate = {
        name: as_papers_count(tabulate(name, n_stages=stages, n_micro_batches=32)).bubble_rate
        for name, stages in (("1f1b", 8), ("zb-h1", 8), ("zb-h2", 8), ("zbv", 16))
    }
    assert rate == {"1f1b": 1 - 96 / 117, "zb-h1": 1 - 96 / 103, "zb-h2": 0.0, "zbv": 0.0}


def test_the_memory_of_dualpipev() -> None:
    assert kept(tabulate("dualpipev", n_stages=8, n_micro_batches=10)).together == (9,) * 4


@pytest.mark.parametrize("p", [2, 3, 4, 5, 6, 8, 12, 16])
def test_the_activations_of_1f1b_v_half_and_v_min_in_micro_batches(p: int) -> None:
    """A micro-batch of a worker with two stages is counted twice by `kept`, once for each stage."""
    m = 4 * p
    assert max(kept(tabulate("1f1b", n_stages=p, n_micro_batches=m)).together) == p
    assert max(kept(tabulate("zbv", n_stages=2 * p, n_micro_batches=m)).together) == 2 * p
    assert max(kept(tabulate("v-half", n_stages=2 * p, n_micro_batches=m)).together) == 2 * ((p + 2) // 2)
    assert max(kept(tabulate("v-min", n_stages=2 * p, n_micro_batches=m)).together) == 2 * ((p + 4) // 3)


@pytest.mark.parametrize("name", ["zb-h1", "zb-h2", "zbv", "v-half", "v-min", "dualpipev"])
@pytest.mark.parametrize("group", [1, 4])
def test_weight_gradients_that_wait_do_not_pile_up_with_more_micro_batches(name: str, group: int) -> None:
    """Elsewhere a schedule with W apart kept every micro-batch's weight gradient until the end of the step."""
    stages = 8
    peaks = [kept(tabulate(name, n_stages=stages, n_micro_batches=m), group).together for m in (32, 64, 256)]
    assert peaks[0] == peaks[1] == peaks[2]
