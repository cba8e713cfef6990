"""`pipetrain data`: any file is described or refused in a line, and the suggested job trains."""

from __future__ import annotations

import datetime
import decimal
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest
from PIL import Image
from pyarrow import parquet

from cluster.data.content import Table
from cluster.data.describing import ColumnFacts, describe
from cluster.data.suggesting import Suggestion, suggest
from stages.errors import UserMistake
from tests.jobs import pipetrain_here as pipetrain

PENGUINS = """\
species,island,bill_mm,mass_g,sex,seen
Adelie,Torgersen,39.1,3750,male,2007-11-11
Adelie,Torgersen,39.5,3800,female,2007-11-11
Adelie,Biscoe,,3250,female,2007-11-16
Gentoo,Biscoe,46.1,4500,female,2008-11-27
Gentoo,Biscoe,50.0,5700,male,2008-11-27
Gentoo,Biscoe,48.7,NA,,2008-11-27
Chinstrap,Dream,46.5,3500,female,2009-11-26
Chinstrap,Dream,50.0,3900,male,2009-11-26
Chinstrap,Dream,51.3,3650,male,2009-11-21
"""
N = 40


def facts(**columns: object) -> dict[str, ColumnFacts]:
    """The facts of columns of values."""
    table = pa.table(columns)
    described = describe(Table(columns={name: table[name] for name in table.column_names}, n_rows=table.num_rows))
    return {one.name: one for one in described}


def suggestion(*targets: str, index: tuple[str, ...] = (), **columns: object) -> Suggestion:
    """The suggestion for columns of values."""
    return suggest(list(facts(**columns).values()), index, targets, "t.csv")


def test_penguins_train_in_three_commands_and_are_called_by_name(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(PENGUINS)
    described = pipetrain("data", tmp_path / "p.csv", "--write", tmp_path / "job.yaml")
    assert "target: species (a guess: name another one by --target)" in described.stdout
    assert "left out: seen (a date)" in described.stdout
    assert pipetrain("train", tmp_path / "job.yaml", "--local", "--run-dir", tmp_path / "run").returncode == 0
    answers = pipetrain("predict", tmp_path / "run", "--input", tmp_path / "p.csv", "--output", "-").stdout
    named = [line.split(",")[1] for line in answers.splitlines()[1:]]
    right = [line.split(",")[0] for line in PENGUINS.splitlines()[1:]]
    assert sum(a == b for a, b in zip(named, right, strict=True)) >= 8


def test_columns_are_described_by_type_gaps_and_values() -> None:
    found = facts(
        whole=[1, 2, None, 4],
        number=[0.5, float("nan"), 1.5, float("inf")],
        text=["b", "", None, "a"],
        flag=[True, False, True, None],
        day=[datetime.date(2020, 1, k) for k in (1, 2, 3, 3)],
        price=[decimal.Decimal("1.50"), None, None, decimal.Decimal("2.50")],
        kind=pa.array(["x", "x", "y", None]).dictionary_encode(),
        nothing=pa.nulls(4),
        nested=[[1], [2], None, []],
    )
    shown = {name: (one.type, one.empty, one.different, one.summary) for name, one in found.items()}
    assert shown == {
        "whole": ("whole number", 1, 3, "1 to 4, mean 2.333"),
        "number": ("number", 2, 2, "0.5 to 1.5, mean 1"),
        "text": ("text", 2, 2, "a (1), b (1)"),
        "flag": ("yes or no", 1, 2, "true (2), false (1)"),
        "day": ("date", 0, 3, "2020-01-03 (2), 2020-01-01 (1), 2020-01-02 (1)"),
        "price": ("number", 2, 2, "1.5 to 2.5, mean 2"),
        "kind": ("text", 1, 2, "x (2), y (1)"),
        "nothing": ("text", 4, 0, "empty"),
        "nested": ("other", 1, 0, ""),
    }


def test_the_target_is_that_of_its_name_else_a_guess_that_is_said() -> None:
    a, kinds = [k / 2 for k in range(N)], ["x", "y"] * (N // 2)
    assert (suggestion(a=a, Label=kinds, b=a).target, suggestion(a=a, Label=kinds, b=a).why_target) == (
        ("Label",),
        "by its name",
    )
    assert suggestion(a=a, b=a, kind=kinds).target == ("kind",)
    assert suggestion(kind=kinds, a=a, b=a).target == ("kind",)
    assert suggestion(a=a, b=a).target == ("b",)
    assert suggestion(a=a, b=a).why_target.startswith("a guess")
    assert suggestion("a", a=a, b=a).target == ("a",)
    assert suggestion("a", "b", a=a, b=a, c=a).target == ("a", "b")


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["x", "y"] * 20, 2),
        ([True, False] * 20, 2),
        ([0, 1] * 20, 2),
        (list(range(5)) * 8, 5),
        ([3, 7] * 20, 2),
        (list(range(N)), None),
        ([0.5, 1.5] * 20, None),
    ],
)
def test_texts_and_few_whole_numbers_are_classes(values: list[object], classes: int | None) -> None:
    assert suggestion("y", a=[k / 2 for k in range(N)], y=values).classes == classes


def test_what_cannot_help_is_left_out_with_its_reason() -> None:
    found = suggestion(
        id=list(range(1, N + 1)),
        name=[f"n{k}" for k in range(N)],
        same=[7] * N,
        nothing=pa.nulls(N),
        remark=[f"r{k // 2}" for k in range(N)],
        day=[datetime.date(2020, 1, 1 + k % 28) for k in range(N)],
        a=[None, *(k / 2 for k in range(N - 1))],
        kind=[None, *(["x", "y", "z"] * 13)],
        y=[None, *([0, 1, 2] * 13)],
    )
    assert found.inputs == ("a", "kind")
    assert {name: (entry, why) for name, entry, why in found.entries} == {
        "y": ("{missing: drop}", "no target"),
        "id": ("key", "numbers of rows"),
        "name": ("drop", "different in every row"),
        "same": ("drop", "the same in every row: 7"),
        "nothing": ("drop", "empty"),
        "remark": ("drop", "text with 20 different values"),
        "day": ("drop", "a date"),
        "a": ("{missing: median}", "1 empty"),
        "kind": ("{missing: most_frequent}", "1 empty"),
    }


@pytest.mark.parametrize(
    ("targets", "columns", "expected"),
    [
        (("mas",), {"a": [1.5, 2.5], "mass": [1, 2]}, "--target: t.csv has no column 'mas'; did you mean mass?"),
        ((), {"y": [1.5, 2.5]}, "t.csv: no column is left for the inputs; the target takes y"),
        ((), {"a": pa.nulls(2)}, "t.csv: has no column that can be trained on"),
        (("a", "k"), {"a": [1.5, 2.5], "k": ["x", "y"], "b": [1.5, 2]}, "t.csv: 'k' is text, and only one target may"),
    ],
)
def test_what_cannot_be_suggested_is_one_line(targets: tuple[str, ...], columns: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserMistake) as caught:
        suggestion(*targets, **columns)
    assert str(caught.value).startswith(expected)


def _parquet(file: Path) -> None:
    kinds = pa.array(["x", "y"] * 20).dictionary_encode()
    parquet.write_table(pa.table({"a": np.arange(N) / 3, "deep": [[1]] * N, "kind": kinds}), file)


def _images(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name, brightness in (("dark", 40), ("light", 200)):
        (folder / name).mkdir(parents=True)
        for k in range(8):
            pixels = (brightness + rng.integers(0, 20, size=(4, 4))).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{k}.png")


def _labels(file: Path) -> None:
    labels = np.arange(N) % 2
    np.savez(file, x=labels[:, None, None] + np.random.default_rng(0).normal(size=(N, 2, 3)) / 9, y=labels)


def _csv(file: Path) -> None:
    file.write_text("größe (cm),1,no,y\n" + "".join(f"{k},3{k},{'ab'[k % 2]},{k / 2}\n" for k in range(N)))


def _json_lines(file: Path) -> None:
    file.write_text("".join(json.dumps({"a": k / 3, "label": "xy"[k % 2]}) + "\n" for k in range(N)))


def _feather(file: Path) -> None:
    pyarrow.feather.write_feather(pa.table({"a": np.arange(N) / 3, "y": np.arange(N) / 9}), str(file))


TRAINABLE: dict[str, Callable[[Path], object]] = {
    "t.csv": _csv,
    "semicolon.csv": lambda file: file.write_bytes("a;größe;art\n".encode("latin-1") + b"1,5;2;x\n2,5;3;y\n" * 20),
    "few.csv": lambda file: file.write_text("a,y\n1,2\n2,4\n"),  # too few to keep one for validation
    "t.parquet": _parquet,
    "t.feather": _feather,
    "t.jsonl": _json_lines,
    "labels.npz": _labels,
    "numbers.npz": lambda file: np.savez(file, x=np.ones((N, 2)), y=np.arange(2.0 * N).reshape(N, 2)),
    "pictures": _images,
    "some.txt": lambda file: file.write_text("to be or not to be, " * 200),
}


@pytest.mark.parametrize("name", TRAINABLE)
def test_the_suggested_job_trains_as_it_is(name: str, tmp_path: Path) -> None:
    TRAINABLE[name](tmp_path / name)
    described = pipetrain("data", tmp_path / name, "--write", tmp_path / "job.yaml")
    assert described.returncode == 0, described.stderr
    shorter = ("--set", "training.steps=3") if name == "some.txt" else ("--set", "training.epochs=2")
    trained = pipetrain("train", tmp_path / "job.yaml", "--local", "--run-dir", tmp_path / "run", *shorter)
    assert trained.returncode == 0, (tmp_path / "job.yaml").read_text() + trained.stderr
    json.loads(pipetrain("data", tmp_path / name, "--json").stdout)


ODD: dict[str, Callable[[Path], object]] = {
    "empty.csv": lambda file: file.write_bytes(b""),
    "header.csv": lambda file: file.write_text("a,y\n"),
    "noise.csv": lambda file: file.write_bytes(bytes(range(256)) * 40),
    "noise.parquet": lambda file: file.write_bytes(b"PAR1" + b"x" * 90),
    "noise.npz": lambda file: file.write_bytes(b"PK\x03\x04 no"),
    "objects.npz": lambda file: np.savez(file, x=np.array([{}, []], dtype=object), y=np.zeros(2)),
    "texts.npz": lambda file: np.savez(file, x=np.array(["a", "b"]), y=np.zeros(2)),
    "alone.npz": lambda file: np.savez(file, x=np.zeros((3, 2))),
    "nan.npz": lambda file: np.savez(file, x=np.full((3, 2), np.nan), y=np.full(3, np.nan)),
    "scalar.npz": lambda file: np.savez(file, x=np.zeros(()), y=np.zeros(())),
    "single.npy": lambda file: np.save(file, np.zeros((3, 2))),
    "nested.parquet": lambda file: parquet.write_table(pa.table({"a": [[1], [2]], "b": [{"c": 1}, None]}), file),
    "broken.jsonl": lambda file: file.write_text('{"a": 1\n[2]\n'),
    "blank.txt": lambda file: file.write_text("  \n"),
    "numbers.bin": lambda file: file.write_bytes(b"\1\0" * 99),
    "folder": lambda file: file.mkdir(),
    "job.yaml": lambda file: file.write_text("a: 1"),
    "missing.csv": lambda file: None,
}


@pytest.mark.parametrize("name", ODD)
def test_no_file_gives_a_traceback(name: str, tmp_path: Path) -> None:
    ODD[name](tmp_path / name)
    for more in ((), ("--write", tmp_path / "new.yaml"), ("--json",), ("--target", "a")):
        done = pipetrain("data", tmp_path / name, *more)  # an error that is not a line would be raised here
        assert done.returncode in (0, 2)
        assert done.returncode == 0 or done.stderr.startswith("error: ")


def test_a_job_file_is_not_replaced_unless_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(PENGUINS)
    (tmp_path / "job.yaml").write_text("mine")
    done = pipetrain("data", tmp_path / "p.csv", "--write", tmp_path / "job.yaml")
    assert (done.returncode, done.stderr) == (
        2,
        f"error: --write: {tmp_path / 'job.yaml'} exists; --overwrite replaces it\n",
    )
    assert (tmp_path / "job.yaml").read_text() == "mine"
    assert pipetrain("data", tmp_path / "p.csv", "--write", tmp_path / "job.yaml", "--overwrite").returncode == 0
