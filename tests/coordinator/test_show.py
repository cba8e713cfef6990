"""`pipetrain show`, as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cluster.cli.show import show
from coordinator.schedules import build
from coordinator.schedules.csv_format import read_csv
from tests.coordinator.drawn import block


def run(*words: str) -> Result:
    return CliRunner().invoke(show, words, catch_exceptions=False, env={"COLUMNS": "100"})


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """The whole command, so that errors take their way out."""
    code = "from cluster.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, "show", *words], capture_output=True, text=True, check=False)


def test_a_schedule_is_drawn_with_its_bubble_and_memory() -> None:
    result = run("1f1b", "--stages", "3", "--micro-batches", "4")
    assert result.output.rstrip() == block(
        """
        1f1b · 3 stages · 4 micro-batches

        time      0              5              10             15
        worker 0  F0 F1 F2 ·  ·  ·  ·  B0─── F3 B1─── ·  B2─── ·  B3───
        worker 1  ·  F0 F1 ·  ·  B0─── F2 B1─── F3 B2─── ·  B3─── ·  ·
        worker 2  ·  ·  F0 B0─── F1 B1─── F2 B2─── F3 B3─── ·  ·  ·  ·

        F forward   B backward   · idle
        bubble  33.3% idle in 18 units of time (F = I = W = 1, B = 2)
        memory  keeps at most 3, 2, 1 micro-batches alive on stages 0 … 2
        """
    )


def test_the_group_of_weight_gradients_is_in_the_memory() -> None:
    result = run("1f1b", "--stages", "3", "--micro-batches", "8", "--weight-grad-group", "4")
    assert "keeps at most 6, 5, 4 micro-batches alive on stages 0 … 2" in result.output
    assert "until their input gradient: 3, 2, 1" in result.output


def test_workers_can_hold_several_stages() -> None:
    result = run("1f1b", "--stages", "4", "--micro-batches", "4", "--workers", "2")
    assert "1f1b · 4 stages on 2 workers · 4 micro-batches" in result.output
    assert "worker 0  0F0" in result.output


def test_csv_is_read_back_as_the_same_schedule(tmp_path: Path) -> None:
    path = tmp_path / "made.csv"
    result = run("zb-h1", "--stages", "3", "--micro-batches", "5", "--format", "csv", "--output", str(path))
    assert (result.exit_code, result.output) == (0, "")
    made = build("zb-h1", n_stages=3, n_micro_batches=5)
    assert read_csv(path.read_text()).lanes == made.lanes
    assert run(str(path), "--format", "csv").output.rstrip("\n") == path.read_text().rstrip("\n")
    assert "made.csv · 3 stages · 2 micro-batches" in run(str(path), "--micro-batches", "2").output


def test_chrome_is_json_with_a_slice_an_action() -> None:
    trace = json.loads(run("gpipe", "--stages", "2", "--micro-batches", "3", "--format", "chrome").output)
    assert sum(event["ph"] == "X" for event in trace["traceEvents"]) == 12


MISTAKES = [
    (
        ("1f2b",),
        "'1f2b' is not a schedule; there are gpipe, 1f1b, interleaved-1f1b, zb-h1 and .csv files; did you mean 1f1b?",
    ),
    (("gpipe", "--stages", "2", "--workers", "3"), "gpipe: 2 stages, 8 micro-batches, 3 workers"),
    (("nowhere.csv",), "nowhere.csv: cannot be read: No such file or directory"),
    (("gpipe", "--output", "/nowhere/there"), "/nowhere/there cannot be written: No such file or directory"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES)
def test_a_mistake_is_one_line_and_exit_2(words: tuple[str, ...], message: str) -> None:
    done = command(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_broken_schedule_is_shown_with_its_place_and_exit_2(tmp_path: Path) -> None:
    path = tmp_path / "broken.csv"
    path.write_text("0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n")
    done = command(str(path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "worker 0  0F0 [0B0] 0F1 0B1  <-- 0B0 stuck, waits for 1B0",
        "worker 1  1F0 [1F1] 1B0 1B1  <-- 1F1 stuck, waits for 0F1",
        "error: broken.csv: workers wait for each other in a circle: "
        "0B0 waits for 1B0 behind 1F1, 1F1 waits for 0F1 behind 0B0",
    ]
