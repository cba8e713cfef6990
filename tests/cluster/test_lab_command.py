from __future__ import annotations

import json
from pathlib import Path

import pytest

from coordinator.job.schedule_names import SCHEDULES
from coordinator.schedules.csv_format import load_csv
from tests.jobs import pipetrain_here


def test_json_has_a_row_for_each_schedule() -> None:
    found = json.loads(pipetrain_here("lab", "--stages", "4", "--micro-batches", "6", "--json").stdout)
    assert {key: found[key] for key in ("workers", "micro_batches", "times", "latency", "memory", "shortest")} == {
        "workers": 4,
        "micro_batches": 6,
        "times": {"F": 1.0, "I": 1.0, "W": 1.0},
        "latency": 0.0,
        "memory": None,
        "shortest": "zbv",
    }
    rows = {row["schedule"]: row for row in found["schedules"]}
    assert list(rows) == list(SCHEDULES)
    assert rows["zb-h1"] == {
        "schedule": "zb-h1",
        "stages": 4,
        "step": 21.0,
        "in_a_row": 21.0,
        "bubble": pytest.approx(3 / 21),
        "bubble_rate": pytest.approx(3 / 21),
        "kept": 4.0,
        "fits": True,
        "messages": 36,
        "origin": "program",
        "estimated_from": None,
        "missed": None,
    }
    assert rows["dualpipev"] == {"schedule": "dualpipev", "left_out": "needs at least 8 micro-batches"}


def test_the_table_and_the_pictures_on_one_axis() -> None:
    lines = pipetrain_here(
        "lab", "--stages", "2", "--micro-batches", "3", "--schedules", "1f1b,zbv", "--memory", "2"
    ).stdout.splitlines()
    assert "│ 1f1b     │      2 │   11 │  18.2% │       18.2% │             2 │        6 │" in lines
    assert "│ zbv      │      4 │  9.5 │   5.3% │        0.0% │             2 │       12 │" in lines
    assert "shortest step of those that keep at most 2 micro-batches a worker: zbv, 9.5" in lines
    pictures = [line for line in lines if line.startswith("worker ")]
    assert len(pictures) == 4
    assert pictures[1].endswith("·")
    assert len({len(line) for line in pictures}) == 1


def test_the_schedule_that_is_searched_is_written(tmp_path: Path) -> None:
    path = tmp_path / "auto.csv"
    lines = pipetrain_here(
        "lab", "--stages", "2", "--micro-batches", "3", "--times", "1,1.5,0.7", "--latency", "0.3", "--memory", "1",
        "--search", "--output", path,
    ).stdout.splitlines()  # fmt: skip
    assert "shortest step of those that keep at most 1 micro-batches a worker: auto, 18.9" in lines
    assert f"auto has 2 stages and is written to {path}: pipeline.schedule takes it" in lines
    program = load_csv(path)
    assert (program.n_stages, program.n_workers, program.n_micro_batches) == (2, 2, 3)


def test_a_row_for_the_searched_schedule_says_by_how_much_it_is_shorter() -> None:
    arguments = ("lab", "--stages", "4", "--micro-batches", "10", "--times", "1,1.5,0.7", "--latency", "0.3")
    lines = pipetrain_here(*arguments, "--search").stdout.splitlines()
    assert [line for line in lines if line.startswith("auto is ")] == [
        "auto is 4.1% shorter than zb-h1 with 8 stages, the best built-in one"
    ]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--output", "a.csv"), "error: --output: goes with --search, whose schedule it writes\n"),
        (("--times", "1,2"), "error: --times: '1,2' is not three numbers F,I,W such as 1,1,1\n"),
        (("--times", "1,0,1"), "error: --times: '1,0,1': each of F, I and W must be above 0 and at most 1e+09\n"),
        (("--times", "1,nan,1"), "error: --times: '1,nan,1': each of F, I and W must be above 0 and at most 1e+09\n"),
        (
            ("--times", "1,1,1e308"),
            "error: --times: '1,1,1e308': each of F, I and W must be above 0 and at most 1e+09\n",
        ),
        (
            ("--memory", "1"),
            "error: memory: 1 micro-batches a worker, but no schedule keeps so few; the least is 4, of v-min\n",
        ),
        (
            ("--schedules", "zb-h3"),
            "error: --schedules: 'zb-h3' is not one of gpipe, 1f1b, interleaved-1f1b, looped-bfs, zb-h1, zb-h2, zbv, "
            "v-half, v-min, dualpipev, or all; did you mean zb-h2?\n",
        ),
    ],
)
def test_mistakes_are_one_line_and_exit_2(arguments: tuple[str, ...], line: str) -> None:
    found = pipetrain_here("lab", *arguments)
    assert (found.returncode, found.stdout, found.stderr) == (2, "", line)


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--latency", "nan", "nan is not a number"),
        ("--latency", "inf", "inf is not in the range 0<=x<=1000000000.0"),
        ("--memory", "nan", "nan is not a number"),
    ],
)
def test_what_is_no_number_is_a_mistake(option: str, value: str, why: str) -> None:
    found = pipetrain_here("lab", option, value)
    line = f"error: invalid value for '{option}': {why}; `pipetrain lab --help` describes its arguments\n"
    assert (found.returncode, found.stdout, found.stderr) == (2, "", line)


def test_what_is_exact_has_all_its_digits() -> None:
    many = ("--stages", "1000000000", "--micro-batches", "1000000000", "--schedules", "v-min")
    shown = pipetrain_here("lab", *many).stdout
    row = next(line for line in shown.splitlines() if line.startswith("│ v-min"))
    assert [cell.strip() for cell in row.split("│")[3:7:3]] == ["4,999,999,997.5", "333,333,334"]
    assert "shortest step: v-min, 4,999,999,997.5" in shown
    refused = pipetrain_here("lab", *many, "--memory", "123456789")
    assert refused.stderr.startswith(
        "error: memory: 123,456,789 micro-batches a worker, but no schedule keeps so few; "
    )
