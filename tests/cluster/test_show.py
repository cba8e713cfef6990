from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from click.testing import CliRunner

from cluster.cli import cli, main
from coordinator.schedules import SCHEDULES, build
from coordinator.schedules.csv_format import load_csv


@dataclass
class Outcome:
    code: int
    out: str
    err: str


class Show(Protocol):
    def __call__(self, *arguments: str | Path) -> Outcome: ...


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Show:
    """Run `pipetrain show …` in this process, through the same `main` as the command."""

    def run(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["pipetrain", "show", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "100")
        with pytest.raises(SystemExit) as ended:
            main()
        caught = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Outcome(ended.value.code, caught.out, caught.err)

    return run


def test_text(show: Show) -> None:
    found = show("1f1b", "--stages", "3", "--micro-batches", "4")
    assert (found.code, found.err) == (0, "")
    assert (
        found.out
        == """\
1f1b · 3 stages · 4 micro-batches

time      0              5              10             15
worker 0  F0 F1 F2 ·  ·  I0 W0 F3 I1 W1 ·  I2 W2 ·  I3 W3
worker 1  ·  F0 F1 ·  I0 W0 F2 I1 W1 F3 I2 W2 ·  I3 W3 ·
worker 2  ·  ·  F0 I0 W0 F1 I1 W1 F2 I2 W2 F3 I3 W3 ·  ·

F forward   I input gradient   W weight gradient   · idle
bubble  25.0% idle in 16 units of time (F = I = W = 1); bubble rate 25.0%
        33.3% in 18 as papers count: each B (I and W) is one action
memory  keeps at most 3, 2, 1 micro-batches alive on stages 0 … 2
"""
    )


def test_stages_are_named_where_workers_are_not_in_their_order(show: Show, tmp_path: Path) -> None:
    """A schedule in which worker 0 does not hold stage 0 was once drawn as if it did."""
    (tmp_path / "turned.csv").write_text("1F0,1B0\n0F0,0B0\n")
    assert show(tmp_path / "turned.csv").out.splitlines()[:5] == [
        "turned.csv · 2 stages · 1 micro-batch",
        "",
        "time      0",
        "worker 0  ·   1F0 1I0 1W0 ·",
        "worker 1  0F0 ·   ·   0I0 0W0",
    ]


def test_the_weight_group_shows_in_the_memory(show: Show) -> None:
    found = show("1f1b", "--stages", "2", "--micro-batches", "6", "--weight-grad-group", "3")
    assert "memory  keeps at most 4, 3 micro-batches alive on stages 0 … 1\n" in found.out


def test_a_schedule_in_a_v_with_pairs_shows_both_bubbles_and_the_pairs_as_one(show: Show) -> None:
    lines = show("dualpipev", "--stages", "8", "--micro-batches", "10").out.splitlines()
    assert lines[0] == "dualpipev · 8 stages on 4 workers · 10 micro-batches"
    assert lines[-4:] == [
        "bubble  4.8% idle in 63 units of time (F = I = W = 1); bubble rate 4.8%",
        "        9.1% in 66 as papers count: the halves of a pair end together",
        "memory  keeps at most 8, 7, 6, 5, 4, 3, 2, 1 micro-batches alive on stages 0 … 7",
        "        by worker, its stages together: 9, 9, 9, 9",
    ]


def test_a_large_program_is_drawn_thin(show: Show) -> None:
    lines = show("1f1b", "--stages", "40", "--micro-batches", "300").out.splitlines()
    assert lines[0] == "1f1b · 40 stages · 300 micro-batches"
    picture = lines[2:34]
    assert [line[:9] for line in picture[:3]] == ["worker  0", "worker  1", "worker  3"]
    assert {len(line) for line in picture} == {100}
    assert lines[35:37] == [
        "32 of 40 workers; 978 units of time in each line, each letter what a worker does most of its time",
        "F forward   I input gradient   W weight gradient   · idle",
    ]
    assert lines[-1] == (
        "memory  keeps at most 40, 39, 38, 37, 36, 35, 34, 33, 32, 31, 30, 29, …, 4, 3, 2, 1 "
        "micro-batches alive on stages 0 … 39"
    )


@pytest.mark.parametrize("name", SCHEDULES)
def test_csv_can_be_shown_again(show: Show, tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.csv"
    assert show(name, "--stages", "4", "--micro-batches", "6", "--format", "csv", "-o", path) == Outcome(0, "", "")
    assert load_csv(path).lanes == build(name, n_stages=4, n_micro_batches=6).lanes
    direct, again = show(name, "--stages", "4", "--micro-batches", "6"), show(path)
    assert again.out.splitlines()[1:] == direct.out.splitlines()[1:]
    assert show(name, "--stages", "4", "--micro-batches", "6", "--format", "csv").out == path.read_text()


def test_chrome(show: Show) -> None:
    found = show("zb-h1", "--stages", "2", "--micro-batches", "3", "--format", "chrome")
    trace = json.loads(found.out)
    slices = [event for event in trace if event["ph"] == "X"]
    assert len(slices) == 2 * 3 * 3
    assert max(event["ts"] + event["dur"] for event in slices) == 10_000
    assert trace[0]["args"] == {"name": "zb-h1 predicted"}
    kept = [event["args"]["micro-batches"] for event in trace if event["ph"] == "C"]
    assert max(kept) == 2


def test_fewer_micro_batches_of_a_file(show: Show, tmp_path: Path) -> None:
    path = tmp_path / "v.csv"
    path.write_text("0F0,0F1,,,3F0,3B0,3F1,3B1,,0B0,0B1\n,1F0,2F0,1F1,2F1,,2B0,1B0,2B1,1B1\n")
    assert show(path, "--micro-batches", "1", "--format", "csv").out == "0F0,,,3F0,3B0,,,0B0\n,1F0,2F0,,,2B0,1B0,\n"


# mistakes ----------------------------------------------------------------------------------------------------------


def test_an_unknown_name_gets_the_nearest(show: Show) -> None:
    assert show("1fb1") == Outcome(
        2,
        "",
        "error: '1fb1' is not a schedule; there are gpipe, 1f1b, interleaved-1f1b, looped-bfs, zb-h1, zb-h2, zbv, "
        "v-half, v-min, dualpipev and .csv files; did you mean 1f1b?\n",
    )


def test_a_broken_file_is_shown_with_the_place_marked(show: Show, tmp_path: Path) -> None:
    path = tmp_path / "broken.csv"
    path.write_text("0F0,0F1,0B0,0B1\n1F0,,1B0,1B1\n")
    assert show(path) == Outcome(
        2,
        "",
        "worker 0  0F0 0F1 0B0 0B1\n"
        "worker 1  1F0 1B0 [1F1?] 1B1  <-- 1F1 is missing\n"
        "error: broken.csv: 1F1 is missing on worker 1\n",
    )


def test_mistakes_are_one_line_and_exit_2(show: Show, tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_text("0F0,0B0\n")
    for arguments, line in (
        ((tmp_path / "none.csv",), f"error: {tmp_path}/none.csv: cannot be read: No such file or directory"),
        ((path, "--stages", "2"), f"error: --stages: 2, but {path} has 1"),
        ((path, "--workers", "2"), f"error: --workers: 2, but {path} has 1"),
        ((path, "--micro-batches", "2"), f"error: --micro-batches: 2, but {path} has 1"),
        (("gpipe", "--stages", "2", "--workers", "3"), "error: gpipe: 2 stages, 8 micro-batches, 3 workers: each must"),
        (("gpipe", "-o", tmp_path / "no" / "x"), f"error: --output: {tmp_path}/no/x cannot be written: No such file"),
    ):
        found = show(*arguments)
        assert (found.code, found.out) == (2, "")
        assert found.err.startswith(line)
        assert len(found.err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments", [["--stages", "0"], ["--micro-batches", "x"], ["--format", "png"], ["--weight-grad-group", "0"]]
)
def test_options_are_checked(arguments: list[str]) -> None:
    found = CliRunner().invoke(cli, ["show", "gpipe", *arguments])
    assert found.exit_code == 2
    assert f"Invalid value for '{arguments[0]}'" in found.output


def test_the_installed_command() -> None:
    command = str(Path(sys.executable).with_name("pipetrain"))
    shown = subprocess.run(
        [command, "show", "gpipe", "--stages", "2", "--micro-batches", "2", "--format", "csv"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert shown.stdout == "0F0,0F1,,,0B0,0B1\n,1F0,1F1,1B0,1B1,\n"
