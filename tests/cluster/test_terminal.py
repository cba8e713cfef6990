from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from cluster.cli.live_facts import (
    JobPulse,
    LiveRun,
    LiveWorker,
    Pace,
    RecentRows,
    RecentTimes,
    local_workers,
    shares_of,
)
from cluster.cli.live_view import live_view, spark_line, time_bar
from cluster.cli.progress import Header, RunDisplay
from cluster.client import Job
from cluster.client.figures import figures_from_wire
from cluster.run.worker_times import bubble_of, predicted_bubbles, worker_times
from cluster.service.job_stats import JobStats
from cluster.service.stats_message import evenly, stats_message
from coordinator.train.rows import EvalRow, StepRow
from stages.ledger import STAGE_KINDS, WORKER_KINDS
from tests.examples import examples
from tests.jobs import EXAMPLES, PIPETRAIN


def drawn(facts: LiveRun, width: int, height: int | None = None) -> list[str]:
    """Return the lines of a terminal of `width` columns, without colours and trailing blanks."""
    console = Console(width=width, color_system=None, force_terminal=True)
    with console.capture() as captured:
        console.print(live_view(facts, width=width, height=height))
    return [line.rstrip() for line in captured.get().splitlines()]


def whole(n_workers: int = 2) -> LiveRun:
    """Return complete facts."""
    workers = tuple(
        LiveWorker(
            worker=worker,
            stages=(worker, worker + n_workers),
            host=f"host-{worker % 2}",
            shares=(0.6, 0.25, 0.1, 0.05),
            bubble=0.35,
            bubble_predicted=0.2,
            peak_bytes=(100 + worker) * 2**20,
            limit_bytes=2**30,
        )
        for worker in range(n_workers)
    )
    return LiveRun(
        phase="epoch 12",
        step=345,
        steps_total=690,
        seconds_left=75.2,
        losses=tuple(1 / (1 + step) for step in range(345)),
        loss=0.0521,
        accuracy=0.984,
        validation_loss=0.0637,
        validation_accuracy=0.9861,
        samples_per_second=24594.0,
        bubble=0.31,
        bubble_predicted=0.29,
        workers=workers,
    )


def test_a_wide_terminal_shows_everything() -> None:
    lines = drawn(whole(), 140)
    assert lines[0] == f"epoch 12   {'━' * 20}{'─' * 20}   345/690   1:16 left"
    assert re.fullmatch(r"mean loss 0.0521, accuracy 98.40%   [▁-█]{30}   validation 0.0637, accuracy 98.61%", lines[1])
    assert lines[2] == "24,594 samples/s   bubble 31%   predicted 29%   peak memory 101.0 MiB of 1.0 GiB, worker 1"
    assert lines[3].split("  ")[:8] == ["worker", "stages", "bubble", "predicted", "compute", "wait", "send", "other"]
    assert re.search(r"peak memory  host    █ compute  ░ wait  ▒ send  · other$", lines[3])
    numbers = r"     0  0,2        35%        20%      60%   25%   10%     5%  100.0 MiB of 1.0 GiB  host-0  "
    assert re.fullmatch(numbers + "█{24}░{10}▒{4}·{2}", lines[4])
    assert len(lines) == 6


def test_a_narrow_terminal_shows_fewer_facts_each_of_them_whole() -> None:
    assert drawn(whole(), 60) == [
        f"epoch 12   {'━' * 14}{'─' * 13}   345/690   1:16 left",
        "loss 0.0521   █▄▃▃▂▂▂▁▁   validation 0.0637, accuracy 98.61%",
        "24,594 samples/s   bubble 31%   predicted 29%",
        "worker  stages  bubble           peak memory  time",
        "     0  0,2        35%  100.0 MiB of 1.0 GiB  ████████░░░░▒·",
        "     1  1,3        35%  101.0 MiB of 1.0 GiB  ████████░░░░▒·",
    ]
    assert drawn(whole(), 32) == [
        "epoch 12   345/690   1:16 left",
        "loss 0.0521   validation 0.0637",
        "24,594 samples/s   bubble 31%",
        "worker  bubble  █ compute ░ wait",
        "     0     35%  ██████████░░░░▒·",
        "     1     35%  ██████████░░░░▒·",
    ]


_share = st.none() | st.floats(0, 1)
_positive = st.none() | st.floats(1e-9, 1e9)


@st.composite
def any_facts(draw: st.DrawFn) -> LiveRun:
    """Draw facts with any of them missing."""
    n_workers = draw(st.integers(0, 40))
    workers = []
    for worker in range(n_workers):
        cut = sorted(draw(st.floats(0, 1)) for _ in range(3))
        shares = (cut[0], cut[1] - cut[0], cut[2] - cut[1], 1 - cut[2])
        workers.append(
            LiveWorker(
                worker=worker,
                stages=tuple(draw(st.lists(st.integers(0, 99), min_size=1, max_size=6))),
                host=draw(st.sampled_from(["", "a", "a-host-with-a-long-name.example"])),
                shares=draw(st.none() | st.just(shares)),
                bubble=draw(_share),
                bubble_predicted=draw(_share),
                peak_bytes=draw(st.none() | st.integers(0, 2**45)),
                limit_bytes=draw(st.none() | st.integers(1, 2**45)),
            )
        )
    steps = draw(st.none() | st.integers(1, 10**9))
    return LiveRun(
        phase=draw(st.sampled_from(["starting", "epoch 1", "epoch 12345", "x7k2abcd a-long-name-of-a-jo"])),
        step=draw(st.integers(0, steps or 10**9)),
        steps_total=steps,
        seconds_left=draw(st.none() | st.floats(0, 1e7)),
        losses=tuple(draw(st.lists(st.floats(-1e6, 1e6), max_size=50))),
        loss=draw(st.none() | st.floats(-1e9, 1e9)),
        accuracy=draw(_share),
        validation_loss=draw(_positive),
        validation_accuracy=draw(_share),
        samples_per_second=draw(_positive),
        bubble=draw(_share),
        bubble_predicted=draw(_share),
        workers=tuple(workers),
        one_process=draw(st.booleans()),
    )


@settings(deadline=None, max_examples=examples(50, 150))
@given(any_facts(), st.integers(30, 200), st.none() | st.integers(5, 60))
def test_no_line_is_cut_or_broken_whatever_the_terminal(facts: LiveRun, width: int, height: int | None) -> None:
    lines = drawn(facts, width, height)
    assert all(cell_len(line) <= width for line in lines)
    cut = [line for line in lines if line.endswith("…")]
    assert not cut
    unbroken = drawn(facts, width, height)
    console = Console(width=10_000, color_system=None)
    with console.capture() as captured:
        console.print(live_view(facts, width=width, height=height))
    assert [line.rstrip() for line in captured.get().splitlines()] == unbroken
    if height is not None:
        assert len(lines) <= height


def test_workers_that_have_no_room_are_counted() -> None:
    lines = drawn(whole(40), 100, 12)
    assert len(lines) <= 12
    shown = [line for line in lines if re.match(r" +\d+  \d", line)]
    assert lines[-1] == f"and {40 - len(shown)} more workers"
    assert drawn(whole(40), 100)[-1] == "and 25 more workers"


def test_signs_and_not_only_colours_tell_the_kinds_apart() -> None:
    bar = time_bar((0.5, 0.25, 0.125, 0.125), 16)
    assert bar.plain == "████████░░░░▒▒··"
    assert time_bar((1.0, 0.0, 0.0, 0.0), 7).plain == "███████"
    assert time_bar((0.0, 0.0, 0.0, 1.0), 7).plain == "·······"


@given(st.lists(st.floats(-1e12, 1e12), max_size=300), st.integers(0, 80))
def test_a_spark_line_has_no_more_columns_than_it_may(values: list[float], columns: int) -> None:
    assert len(spark_line(values, columns)) == min(len(values), columns)


def test_a_spark_line_follows_its_values() -> None:
    assert spark_line([1, 2, 4, 8, 16, 32, 64, 128], 8) == "▁▂▃▄▅▆▇█"  # a logarithmic scale
    assert spark_line([-1, 0, 1], 3) == "▁▅█"
    assert spark_line([5, 5, 5], 3) == "▁▁▁"
    assert spark_line([8.0] * 50 + [1.0] * 50, 2) == "█▁"


# what is gathered ----------------------------------------------------------------------------------------------------


def step(number: int, attempt: int = 1, **changes: Any) -> StepRow:
    facts: dict[str, Any] = {
        "step": number,
        "epoch": 1,
        "samples": 10,
        "loss": 1.0 / number,
        "seconds": 0.5,
        "grad_norm": 1.0,
        "learning_rate": 0.1,
        "bubble": 0.25,
        "accuracy": None,
        "attempt": attempt,
    }
    return StepRow(**{**facts, **changes})


def test_rows_give_speed_bubble_and_the_time_that_is_left() -> None:
    rows = RecentRows()
    assert (rows.samples_per_second, rows.bubble, rows.seconds_left(100)) == (None, None, None)
    for number in range(1, 11):
        rows.take(step(number, seconds=1.5 if number % 2 else 0.5, bubble=0.1 if number % 2 else 0.5), now=2.0 * number)
    assert rows.samples_per_second == pytest.approx(100 / 10)
    assert rows.bubble == pytest.approx((5 * 0.5 * 0.5 + 5 * 1.5 * 0.1) / 10)
    assert rows.seconds_left(100) == pytest.approx(90 * 2.0)  # by the clock: including the time between two steps
    assert rows.seconds_left(None) is None


def test_top_shows_the_speed_and_bubble_that_submit_shows() -> None:
    """`top` once showed those of a single step, which vary much."""
    rows, stats = RecentRows(), JobStats(job="job1", name="a", attempt=1)
    for number in range(1, 201):
        row = step(number, seconds=0.01 if number % 4 else 0.04, bubble=0.2 if number % 4 else 0.8)
        rows.take(row, now=0.0)
        stats.take_row(row.as_dict())
    job = cast(Job, SimpleNamespace(id="job1", name="a", steps_total=200))
    facts = JobPulse().facts(job, figures_from_wire(stats_message(stats)), now=0.0)
    assert facts.samples_per_second == rows.samples_per_second == pytest.approx(4 * 10 / 0.07)
    assert facts.bubble == rows.bubble == pytest.approx((3 * 0.002 + 0.032) / 0.07)


def test_a_job_that_begins_again_has_its_figures_anew() -> None:
    rows = RecentRows()
    for number in range(1, 51):
        rows.take(step(number), now=float(number))
    rows.take(EvalRow(step=50, epoch=1, loss=0.5, accuracy=None, samples=10), now=50.0)
    rows.take(step(1, attempt=2), now=60.0)
    assert (rows.losses, rows.evaluation, rows.seconds_left(100), rows.means.loss) == ((1.0,), None, None, 1.0)


def test_lines_of_progress_tell_the_mean_of_the_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    """They once showed the loss of the last batch, which may have few rows."""
    with RunDisplay(Header("a run", steps_total=4)) as progress:
        progress.started()
        for row in (step(1, samples=90, loss=0.5), step(2, loss=9.5), EvalRow(2, 1, 0.7, None, 10)):
            progress.row(row)
        progress.row(step(3, epoch=2, samples=90, loss=0.4, summed=True))
        progress.row(EvalRow(3, 2, 8.0, None, 10, summed=True))
    lines = capsys.readouterr().err.splitlines()
    assert "epoch   1 · step 2/4 · mean loss 1.4 ·" in lines[1]
    assert lines[1].endswith("validation loss 0.7")
    assert "mean loss 0.004444 ·" in lines[2]
    assert lines[2].endswith("validation loss 0.8")


def test_a_pace_is_that_of_late() -> None:
    pace = Pace()
    for second in range(200):
        pace.take(second if second < 100 else 100 + 10 * (second - 100), now=float(second))
    assert pace.seconds_left(1090, 2090) == pytest.approx(100.0)


LINE: Mapping[str, Any] = {
    "stage_us": [[10, 20, 30, 40, 1, 2, 3, 4], [100, 0, 0, 0, 0, 0, 0, 0], [5, 0, 0, 0, 0, 15, 0, 0]],
    "worker_us": [[0, 0, 7, 8], [0, 0, 80, 0]],
    "predicted": [0.1, 0.2, 0.3],
}
PLACEMENT = (0, 1, 0)


def test_a_worker_has_the_times_of_its_stages_and_its_own() -> None:
    first, second = worker_times(LINE, PLACEMENT)
    assert set(first) == {*STAGE_KINDS, *WORKER_KINDS}
    assert sum(first.values()) == 110 + 20 + 15
    assert (first["forward"], first["wait_steady"], second["forward"], second["evaluation"]) == (15, 17, 100, 80)
    assert predicted_bubbles(LINE, PLACEMENT) == pytest.approx([0.4, 0.2])
    assert predicted_bubbles({**LINE, "predicted": None}, PLACEMENT) is None
    assert bubble_of(first) == pytest.approx((1 + 2 + 3 + 4 + 15) / (145 - 7))  # an evaluation is not part of a step
    assert bubble_of({"forward": 0}) is None


def test_shares_are_all_of_a_workers_time() -> None:
    shares = shares_of(worker_times(LINE, PLACEMENT)[0])
    assert shares is not None
    assert shares == pytest.approx((105 / 145, 21 / 145, 4 / 145, 15 / 145))
    assert sum(shares) == pytest.approx(1.0)
    assert shares_of({"forward": 0}) is None


def test_times_are_those_of_the_last_seconds_and_begin_again_with_an_attempt() -> None:
    recent = RecentTimes()
    assert recent.recent() == []
    for second in range(1, 61):
        worked = min(second, 30)
        recent.take([{"forward": worked * 10**6, "other": (second - worked) * 10**6}])
    (times,) = recent.recent()
    assert times["forward"] == 0
    assert times["other"] == pytest.approx(10 * 10**6, rel=0.11)
    recent.take([{"forward": 3, "other": 4}])
    assert recent.recent() == [{"forward": 3, "other": 4}]


def test_workers_of_this_process_are_told_with_stages_and_memory() -> None:
    facts = local_workers(
        worker_times(LINE, PLACEMENT),
        PLACEMENT,
        RecentTimes(),
        predicted=None,
        peaks={0: 123},
        limit_bytes=None,
    )
    assert [(worker.stages, worker.peak_bytes) for worker in facts] == [((0, 2), 123), ((1,), None)]


def test_points_of_a_message_are_evenly_apart_and_end_with_the_last() -> None:
    assert evenly([1.0, 2.0], 3) == [1.0, 2.0]
    assert evenly([float(value) for value in range(1, 101)], 4) == [25.0, 50.0, 75.0, 100.0]
    assert len(evenly([0.0] * 1000, 120)) == 120


# a real terminal ---------------------------------------------------------------------------------------------------


def on_a_terminal(*command: str, columns: int, **variables: str) -> tuple[int, str]:
    """Run a command on a terminal of this many columns; return its exit code and all its output."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**environment, "TERM": "xterm-256color", **variables},
        start_new_session=True,
    )
    os.close(theirs)
    sent = bytearray()
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # no process has the terminal open any more
            break
        if not part:
            break
        sent += part
    os.close(ours)
    return process.wait(timeout=30), sent.decode()


@pytest.mark.parametrize("columns", [60, pytest.param(100, marks=pytest.mark.slow)])
def test_train_shows_the_run_on_a_terminal(tmp_path: Path, columns: int) -> None:
    code, sent = on_a_terminal(
        PIPETRAIN,
        *("train", str(EXAMPLES / "digits.yaml"), "--local", "--run-dir", str(tmp_path / "run")),
        *("--set", "training.epochs=40"),
        columns=columns,
    )
    assert code == 0, sent
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sent)
    for fact in (
        "samples/s",
        "bubble",
        "predicted ",
        "validation 0.",
        "worker  stages  bubble",
        "     3  3 ",
        " left",
    ):
        assert fact in plain, fact
    assert "finished at step 920 of 920" in plain
    shown, _, _ = plain.partition("finished at")
    assert all(cell_len(part) <= columns for line in shown.splitlines() for part in line.split("\r"))


def test_no_color_is_respected(tmp_path: Path) -> None:
    code, sent = on_a_terminal(
        PIPETRAIN,
        *("train", str(EXAMPLES / "digits.yaml"), "--local", "--run-dir", str(tmp_path / "run")),
        columns=100,
        NO_COLOR="1",
    )
    assert code == 0, sent
    styles = set(re.findall(r"\x1b\[([0-9;]*)m", sent))
    assert all(int(part or 0) < 30 for style in styles for part in style.split(";"))  # codes from 30 on are colours
