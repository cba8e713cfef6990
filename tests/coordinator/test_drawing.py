"""Dry runs drawn on their clock."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.drawing import draw_timed, legend
from coordinator.replay import replay
from coordinator.schedules import SCHEDULES, build
from tests.coordinator.drawn import block


def test_1f1b() -> None:
    dry = replay(build("1f1b", n_stages=3, n_micro_batches=4))
    assert (dry.makespan, dry.busy, dry.idle) == (18.0, (12.0,) * 3, (6.0,) * 3)
    assert draw_timed(dry.spans, with_stage=False) == block(
        """
        time      0              5              10             15
        worker 0  F0 F1 F2 ·  ·  ·  ·  B0─── F3 B1─── ·  B2─── ·  B3───
        worker 1  ·  F0 F1 ·  ·  B0─── F2 B1─── F3 B2─── ·  B3─── ·  ·
        worker 2  ·  ·  F0 B0─── F1 B1─── F2 B2─── F3 B3─── ·  ·  ·  ·
        """
    )


def test_zb_h1_fills_the_gaps() -> None:
    dry = replay(build("zb-h1", n_stages=3, n_micro_batches=4))
    assert draw_timed(dry.spans, with_stage=False) == block(
        """
        time      0              5              10
        worker 0  F0 F1 F2 ·  ·  I0 W0 F3 I1 W1 I2 W2 I3 W3
        worker 1  ·  F0 F1 ·  I0 F2 I1 W0 F3 I2 W1 I3 W2 W3
        worker 2  ·  ·  F0 I0 F1 I1 F2 I2 W0 F3 I3 W1 W2 W3
        """
    )


def test_a_worker_with_several_stages_says_which() -> None:
    dry = replay(build("interleaved-1f1b", n_stages=4, n_micro_batches=2))
    assert draw_timed(dry.spans, with_stage=True) == block(
        """
        time      0                   5                   10
        worker 0  0F0 0F1 2F0 2F1 ·   ·   2B0──── ·   2B1──── 0B0──── 0B1────
        worker 1  ·   1F0 1F1 3F0 3B0──── 3F1 3B1──── 1B0──── 1B1──── ·   ·
        """
    )


def test_where_it_is_narrow_cells_close_up_and_then_go_on_below() -> None:
    dry = replay(build("1f1b", n_stages=2, n_micro_batches=3))
    assert draw_timed(dry.spans, with_stage=False, columns=34) == block(
        """
        time      0         5         10
        worker 0  F0F1· · B0──F2B1──· B2──
        worker 1  · F0B0──F1B1──F2B2──· ·
        """
    )
    assert draw_timed(dry.spans, with_stage=False, columns=33) == block(
        """
        time      0              5
        worker 0  F0 F1 ·  ·  B0───
        worker 1  ·  F0 B0─── F1 B1─

        time      6           10
        worker 0  F2 B1─── ·  B2───
        worker 1  ── F2 B2─── ·  ·
        """
    )


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from([*SCHEDULES]),
    stages=st.integers(1, 12),
    m=st.integers(1, 120),
    columns=st.integers(60, 200),
)
def test_no_line_is_too_long_and_colours_change_no_text(name: str, stages: int, m: int, columns: int) -> None:
    dry = replay(build(name, n_stages=stages, n_micro_batches=m))
    plain, painted = (
        draw_timed(dry.spans, with_stage=True, columns=columns, color=color).splitlines() for color in (False, True)
    )
    assert max(map(len, plain)) <= columns
    assert [re.sub(r"\033\[[\d;]*m", "", line).rstrip() for line in painted] == plain
    written = "\n".join(plain)
    if len(plain) == 1 + dry.program.n_workers:  # nothing is cut between two panels
        assert all(str(action) in written for lane in dry.program.lanes for action in lane)


def test_times_that_are_not_units_are_drawn_to_scale() -> None:
    dry = replay(build("gpipe", n_stages=2, n_micro_batches=2), lambda action: 0.25 * (1 + action.stage))
    assert draw_timed(dry.spans, with_stage=False, tick=0.25) == block(
        """
        time      0              5
        worker 0  F0 F1 ·  ·  ·  ·  ·  B0 ·  B1
        worker 1  ·  F0─── F1─── B0─── B1─── ·
        """
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gpipe", "F forward   B backward   · idle"),
        ("zb-h1", "F forward   I input gradient   W weight gradient   · idle"),
    ],
)
def test_the_legend_has_the_letters_in_use(name: str, text: str) -> None:
    assert legend(build(name, n_stages=2, n_micro_batches=2)) == text
