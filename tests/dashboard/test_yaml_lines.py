"""Problems of a job file's text, at their lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.dashboard.submission import NotSubmitted, read_job_text
from cluster.dashboard.yaml_lines import Problem
from coordinator.job.spec import JobSpec

GOOD = """\
name: good
model:
  input: [64]
  layers:
    - linear: {units: 10}
  loss: cross_entropy
data:
  source: digits
training:
  epochs: 1
  batch_size: 10
  optimizer: {sgd: {learning_rate: 0.1}}
"""


def read(text: str, name: str = "") -> JobSpec:
    """Read the job, with this machine's problems of its paths."""
    draft = read_job_text(text, name)
    return draft.spec({path: "no such file" for path in draft.paths.values() if not Path(path).is_file()})


def problems(text: str) -> list[tuple[int | None, str]]:
    with pytest.raises(NotSubmitted) as caught:
        read(text)
    return [(problem.line, problem.text.partition(":")[0]) for problem in caught.value.placed]


def test_a_right_job_is_read() -> None:
    assert read(GOOD).name == "good"
    assert read(GOOD, name="other").name == "other"


@pytest.mark.parametrize(
    ("old", "new", "line", "path"),
    [
        ("units: 10", "units: 0", 5, "model.layers[0].linear.units"),
        ("epochs: 1", "epochs: 0", 10, "training.epochs"),
        ("  epochs: 1\n", "", 9, "training.epochs"),
        ("learning_rate: 0.1", "learning_rate: -1", 12, "training.optimizer.sgd.learning_rate"),
        ("source: digits", "source: digit", 8, "data.source"),
        ("source: digits", "source: rows.npz", 8, "data.source"),
        ("source: digits", "source: /nowhere/rows.npz", 8, "data.source"),
        ("loss: cross_entropy", "loss: @x", 6, "while scanning for the next token found character that"),
        ("name: good", "name: good\nname: twice", 2, "name"),
    ],
)
def test_a_problem_stands_at_its_line(old: str, new: str, line: int, path: str) -> None:
    assert old in GOOD
    found = problems(GOOD.replace(old, new))
    assert len(found) == 1, found
    assert found[0][0] == line
    assert found[0][1].startswith(path)


def test_all_problems_come_at_once_in_the_order_of_lines() -> None:
    text = GOOD.replace("epochs: 1", "epochs: 0").replace("units: 10", "units: -1").replace("digits", "rows.csv")
    assert [line for line, _ in problems(text)] == [5, 8, 10]


def test_what_is_no_job_at_all_is_told() -> None:
    assert problems("") == [(None, "is empty; a job needs model, data and training")]
    assert [line for line, _ in problems("[1, 2]")] == [None]


def test_aliases_that_multiply_do_not_take_for_ever() -> None:
    text = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    assert problems(text)


def test_a_problem_is_written_with_its_line() -> None:
    assert str(Problem(3, "name: wrong")) == "line 3: name: wrong"
