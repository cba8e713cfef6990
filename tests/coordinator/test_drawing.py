from __future__ import annotations

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from coordinator.job.schedule_names import default_workers, fewest_micro_batches
from coordinator.program.drawing import draw, draw_timed, legend
from coordinator.program.replay import replay
from coordinator.schedules import SCHEDULES, build
from stages.actions import Action, Kind, Program
from tests.coordinator.drawn import block
from tests.coordinator.programs import B, F, anything_valid, built_in, program


def timed(name: str, p: int, m: int, w: int | None = None, columns: int = 100) -> str:
    found = build(name, n_stages=p, n_micro_batches=m, n_workers=w)
    return "\n" + draw_timed(replay(found).spans, with_stage=w is not None, columns=columns) + "\n"


# on the clock -------------------------------------------------------------------------------------------------------


def test_gpipe() -> None:
    assert (
        timed("gpipe", 3, 3)
        == """
time      0              5              10
worker 0  F0 F1 F2 ·  ·  ·  ·  ·  ·  B0─── B1─── B2───
worker 1  ·  F0 F1 F2 ·  ·  ·  B0─── B1─── B2─── ·  ·
worker 2  ·  ·  F0 F1 F2 B0─── B1─── B2─── ·  ·  ·  ·
"""
    )


def test_one_f_one_b() -> None:
    assert (
        timed("1f1b", 3, 4)
        == """
time      0              5              10             15
worker 0  F0 F1 F2 ·  ·  ·  ·  B0─── F3 B1─── ·  B2─── ·  B3───
worker 1  ·  F0 F1 ·  ·  B0─── F2 B1─── F3 B2─── ·  B3─── ·  ·
worker 2  ·  ·  F0 B0─── F1 B1─── F2 B2─── F3 B3─── ·  ·  ·  ·
"""
    )


def test_interleaved_names_the_stage() -> None:
    assert (
        timed("interleaved-1f1b", 4, 2, 2)
        == """
time      0                   5                   10
worker 0  0F0 0F1 2F0 2F1 ·   ·   2B0──── ·   2B1──── 0B0──── 0B1────
worker 1  ·   1F0 1F1 3F0 3B0──── 3F1 3B1──── 1B0──── 1B1──── ·   ·
"""
    )


def test_zero_bubble() -> None:
    assert (
        timed("zb-h1", 2, 3)
        == """
time      0              5
worker 0  F0 F1 ·  I0 W0 F2 I1 W1 I2 W2
worker 1  ·  F0 I0 F1 I1 W0 F2 I2 W1 W2
"""
    )


def test_a_narrow_terminal_closes_the_cells_up() -> None:
    assert (
        timed("1f1b", 2, 3, columns=40)
        == """
time      0         5         10
worker 0  F0F1· · B0──F2B1──· B2──
worker 1  · F0B0──F1B1──F2B2──· ·
"""
    )


def test_what_does_not_fit_goes_on_below() -> None:
    assert (
        timed("1f1b", 2, 3, columns=32)
        == """
time      0              5
worker 0  F0 F1 ·  ·  B0───
worker 1  ·  F0 B0─── F1 B1─

time      6           10
worker 0  F2 B1─── ·  B2───
worker 1  ── F2 B2─── ·  ·
"""
    )


def test_measured_times_are_drawn_in_ticks() -> None:
    spans = [[(Action(0, F, 0), 0.0, 0.011), (Action(0, B, 0), 0.0305, 0.0495)], [(Action(1, F, 0), 0.012, 0.019)]]
    assert draw_timed(spans, with_stage=False, tick=0.01) == "\n".join(
        [
            "time      0",
            "worker 0  F0 ·  ·  B0───",
            "worker 1  ·  F0 ·  ·  ·",
        ]
    )


def test_nothing_is_drawn_as_idle_time() -> None:
    assert draw_timed([[], []], with_stage=False) == "time      0\nworker 0  ·\nworker 1  ·"


@settings(deadline=None, max_examples=60)
@given(built_in(6, 12) | anything_valid(), st.integers(30, 200))
def test_every_action_is_drawn_once_where_it_is_performed(found: Program, columns: int) -> None:
    spans = replay(found).spans
    text = draw_timed(spans, with_stage=True, columns=columns)
    assert max(map(len, text.splitlines())) <= max(columns, 8 * 10 + 12)
    panels = [panel.splitlines()[1:] for panel in text.split("\n\n")]
    for worker, lane in enumerate(spans):
        whole = " ".join(panel[worker].removeprefix(f"worker {worker}") for panel in panels)
        assert re.findall(r"\d+[FIWB]\d+", whole) == [str(action) for action, _, _ in lane]
    plain = re.sub(r"\033\[[\d;]*m", "", draw_timed(spans, with_stage=True, columns=columns, color=True))
    assert plain == text


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


def test_times_that_are_not_units_are_drawn_to_scale() -> None:
    dry = replay(build("gpipe", n_stages=2, n_micro_batches=2), lambda action: 0.25 * (1 + action.stage))
    assert draw_timed(dry.spans, with_stage=False, tick=0.25) == block(
        """
        time      0              5
        worker 0  F0 F1 ·  ·  ·  ·  ·  B0 ·  B1
        worker 1  ·  F0─── F1─── B0─── B1─── ·
        """
    )


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from([*SCHEDULES]),
    stages=st.integers(1, 12),
    m=st.integers(1, 120),
    columns=st.integers(60, 200),
)
@example(name="gpipe", stages=11, m=101, columns=60)  # only seven cells fit, though a panel used to have at least eight
def test_no_line_is_too_long_and_colours_change_no_text(name: str, stages: int, m: int, columns: int) -> None:
    m = max(m, fewest_micro_batches(name, default_workers(name, stages)))
    dry = replay(build(name, n_stages=stages, n_micro_batches=m))
    plain, painted = (
        draw_timed(dry.spans, with_stage=True, columns=columns, color=color).splitlines() for color in (False, True)
    )
    assert max(map(len, plain)) <= columns
    assert [re.sub(r"\033\[[\d;]*m", "", line).rstrip() for line in painted] == plain
    written = "\n".join(plain)
    if len(plain) == 1 + dry.program.n_workers:  # no cell is cut between two panels
        assert all(str(action) in written for lane in dry.program.lanes for action in lane)


# in order, with places marked ---------------------------------------------------------------------------------------


def test_marks_and_notes() -> None:
    found = program("0F0 0F1 0B0 0B1", "1F0 1B0 1F1 1B1")
    assert draw(found) == "worker 0  0F0 0F1 0B0 0B1\nworker 1  1F0 1B0 1F1 1B1"
    assert draw(found, mark={Action(1, B, 0): "failed here", Action(0, F, 1): ""}, notes={0: "look"}) == "\n".join(
        [
            "worker 0  0F0 [0F1] 0B0 0B1  <-- look",
            "worker 1  1F0 [1B0] 1F1 1B1  <-- 1B0 failed here",
        ]
    )
    assert draw(found, gaps={1: (2, Action(1, F, 7))}).splitlines()[1] == "worker 1  1F0 1B0 [1F7?] 1F1 1B1"


def test_lanes_of_ten_and_more_workers_begin_in_one_column() -> None:
    lines = draw(build("gpipe", n_stages=11, n_micro_batches=1)).splitlines()
    assert lines[9:] == ["worker 9   9F0 9B0", "worker 10  10F0 10B0"]


def test_long_lanes_are_cut() -> None:
    found = build("gpipe", n_stages=1, n_micro_batches=20)
    assert draw(found) == "worker 0  0F0 0F1 0F2 0F3 0F4 0F5 0F6 0F7 0F8 0F9 0F10 …"
    assert draw(found, mark={Action(0, F, 2): "", Action(0, B, 10): "here"}) == (
        "worker 0  0F0 0F1 [0F2] 0F3 0F4 0F5 0F6 0F7 … "
        "0B5 0B6 0B7 0B8 0B9 [0B10] 0B11 0B12 0B13 0B14 0B15 …  <-- 0B10 here"
    )


def test_the_legend_has_the_letters_that_are_used() -> None:
    assert legend({F, B}) == "F forward   B backward   · idle"
    assert legend({F, Kind.BACKWARD_INPUT, Kind.BACKWARD_WEIGHT}) == (
        "F forward   I input gradient   W weight gradient   · idle"
    )
