"""From a trained table to answers: `predict` in every format, `evaluate` with figures, evaluation.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest
from pyarrow import csv, parquet
from sklearn import metrics

from cluster.run import predicting
from tests.jobs import pipetrain_here as pipetrain

CLASSES = ("Adelie", "Chin,strap", "Gentoo")
JOB = """\
seed: 1
model: {{layers: [linear: {{units: 8}}, relu, linear: {{units: {units}}}], loss: {loss}}}
data: {{source: rows.csv, target: {target}, columns: {columns}, validation: {validation}}}
training: {{epochs: 40, batch_size: 8, optimizer: {{adam: {{learning_rate: 0.02}}}}}}
"""


def _table(rows: int = 60) -> pa.Table:
    """Three kinds that differ by mass and island; `price` follows from the mass, `heavy` is yes or no."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 3, size=rows)
    mass = 3000 + 1000 * kinds + 100 * rng.normal(size=rows)
    return pa.table(
        {
            "tag": [f"bird {k}" for k in range(rows)],
            "mass_g": mass.round(1),
            "island": ["Biscoe" if kind == 2 else "Dream" for kind in kinds],
            "species": [CLASSES[kind] for kind in kinds],
            "price": (mass / 10 + 5000).round(2),
            "heavy": (mass > 4000).astype(int),
        }
    )


def _trained(folder: Path, target: str, loss: str, units: str = "1", validation: str = "0.25") -> Path:
    others = {"species", "price", "heavy"} - set(target.strip("[]").split(", "))
    columns = "{tag: key, " + ", ".join(f"{name}: drop" for name in sorted(others)) + "}"
    csv.write_csv(_table(), folder / "rows.csv")
    job = JOB.format(units=units, loss=loss, target=target, columns=columns, validation=validation)
    (folder / "job.yaml").write_text(job)
    done = pipetrain("train", folder / "job.yaml", "--local", "--run-dir", folder / "run")
    assert done.returncode == 0, done.stderr
    return folder / "run"


def _read(file: Path) -> pa.Table:
    if file.suffix == ".csv":
        return csv.read_csv(file)
    if file.suffix == ".jsonl":
        return pa.Table.from_pylist([json.loads(line) for line in file.read_text().splitlines()])
    return parquet.read_table(file) if file.suffix == ".parquet" else pyarrow.feather.read_table(file)


def test_classes_are_answered_by_name_in_every_format(tmp_path: Path) -> None:
    run = _trained(tmp_path, "species", "cross_entropy", "classes")
    new = _table(70).select(["price", "island", "mass_g", "tag"])  # another order, another column, no target
    csv.write_csv(new, tmp_path / "new.csv")
    for ending in (".csv", ".jsonl", ".parquet", ".feather"):
        file = tmp_path / f"answers{ending}"
        done = pipetrain("predict", run, "--input", tmp_path / "new.csv", "--output", file)
        assert (done.returncode, done.stderr) == (0, "")
        found = _read(file)
        assert found.column_names == ["tag", "prediction", *(f"probability_{name}" for name in CLASSES)]
        assert found["tag"].to_pylist() == new["tag"].to_pylist()
        assert found["prediction"].to_pylist() == _table(70)["species"].to_pylist()
        sums = sum(found[f"probability_{name}"].to_numpy() for name in CLASSES)
        np.testing.assert_allclose(sums, 1, rtol=1e-5)
    shown = pipetrain("predict", run, "--input", tmp_path / "new.csv", "--output", "-")
    assert shown.stdout == (tmp_path / "answers.csv").read_text()
    pipetrain("predict", run, "--input", tmp_path / "new.csv", "--output", tmp_path / "answers.npz")
    with np.load(tmp_path / "answers.npz") as arrays:
        assert arrays["classes"].tolist() == list(CLASSES)
        assert arrays["classes"][arrays["label"]].tolist() == _table(70)["species"].to_pylist()


def test_a_missing_column_is_one_line_with_the_nearest(tmp_path: Path) -> None:
    run = _trained(tmp_path, "species", "cross_entropy", "classes")
    csv.write_csv(_table().rename_columns({"mass_g": "mas_g"}), tmp_path / "new.csv")
    done = pipetrain("predict", run, "--input", tmp_path / "new.csv", "--output", tmp_path / "answers.csv")
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'new.csv'}: has no column 'mass_g'; did you mean 'mas_g'?\n"
    assert not (tmp_path / "answers.csv").exists()


@pytest.mark.parametrize("output", ["answers.pickle", "nowhere/answers.csv", "."])
def test_an_output_that_cannot_be_written_is_one_line(output: str, tmp_path: Path) -> None:
    done = pipetrain("predict", tmp_path, "--input", "new.csv", "--output", tmp_path / output)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --output: ")
    assert done.stderr.count("\n") == 1


def test_numbers_are_answered_and_judged_in_the_target_s_unit(tmp_path: Path) -> None:
    run = _trained(tmp_path, "[price]", "mse")
    pipetrain("predict", run, "--input", tmp_path / "rows.csv", "--output", tmp_path / "answers.csv")
    found = _read(tmp_path / "answers.csv")
    assert found.column_names == ["tag", "prediction"]
    price, answers = _table()["price"].to_numpy(), found["prediction"].to_numpy()
    assert metrics.r2_score(price, answers) > 0.9
    told = pipetrain("evaluate", run, "--data", tmp_path / "rows.csv", "--json")
    (target,) = json.loads(told.stdout)["targets"]
    assert target["name"] == "price"
    assert target["r2"] == pytest.approx(metrics.r2_score(price, answers), abs=1e-5)
    assert target["mae"] == pytest.approx(metrics.mean_absolute_error(price, answers), rel=1e-3)
    assert target["rmse"] == pytest.approx(metrics.root_mean_squared_error(price, answers), rel=1e-3)


def test_several_targets_have_a_column_each(tmp_path: Path) -> None:
    run = _trained(tmp_path, "[price, heavy]", "mse", "2")
    pipetrain("predict", run, "--input", tmp_path / "rows.csv", "--output", tmp_path / "answers.csv")
    assert _read(tmp_path / "answers.csv").column_names == ["tag", "prediction_price", "prediction_heavy"]


def test_yes_or_no_has_one_probability(tmp_path: Path) -> None:
    run = _trained(tmp_path, "heavy", "binary_cross_entropy")
    pipetrain("predict", run, "--input", tmp_path / "rows.csv", "--output", tmp_path / "answers.csv")
    found = _read(tmp_path / "answers.csv")
    assert found.column_names == ["tag", "prediction", "probability_1"]
    assert found["prediction"].to_pylist() == [int(p > 0.5) for p in found["probability_1"].to_pylist()]


def test_evaluate_gives_the_figures_that_the_run_kept(tmp_path: Path) -> None:
    run = _trained(tmp_path, "species", "cross_entropy", "classes")
    kept = json.loads((run / "evaluation.json").read_text())
    found = json.loads(pipetrain("evaluate", run, "--json").stdout)
    assert [one["name"] for one in kept["classes"]] == list(CLASSES)
    assert {key: found[key] for key in ("rows", "classes", "macro", "confusion", "accuracy")} == {
        key: kept[key] for key in ("rows", "classes", "macro", "confusion", "accuracy")
    }
    shown = pipetrain("evaluate", run).stdout
    assert "precision" in shown
    assert "Chin,strap" in shown


@pytest.mark.parametrize(("target", "loss", "units"), [("species", "cross_entropy", "classes"), ("price", "mse", "1")])
def test_the_figures_do_not_depend_on_the_stages(target: str, loss: str, units: str, tmp_path: Path) -> None:
    one = _trained(tmp_path, target, loss, units)
    pipetrain("train", tmp_path / "job.yaml", "--local", "--stages", "2", "--run-dir", tmp_path / "two")
    assert (one / "evaluation.json").read_bytes() == (tmp_path / "two" / "evaluation.json").read_bytes()


def test_a_changed_file_has_no_validation_rows_of_the_run(tmp_path: Path) -> None:
    run = _trained(tmp_path, "species", "cross_entropy", "classes")
    csv.write_csv(_table(61), tmp_path / "rows.csv")
    done = pipetrain("evaluate", run)
    assert done.returncode == 2
    assert "has changed since the training" in done.stderr
    assert pipetrain("evaluate", run, "--data", tmp_path / "rows.csv").returncode == 0


def test_rows_that_the_rules_drop_have_empty_answers_and_are_told(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b,y\n" + "".join(f"{k},{k % 3},{2 * k}\n" for k in range(40)))
    (tmp_path / "job.yaml").write_text(
        JOB.format(units="1", loss="mse", target="y", columns="{a: {missing: drop}, b: {missing: mean}}", validation=0)
    )
    run = tmp_path / "run"
    assert pipetrain("train", tmp_path / "job.yaml", "--local", "--run-dir", run).returncode == 0
    assert not (run / "evaluation.json").exists()
    (tmp_path / "new.csv").write_text("b,a\n1,2\n2,\n,4\n0,NA\n")
    done = pipetrain("predict", run, "--input", tmp_path / "new.csv", "--output", tmp_path / "answers.parquet")
    assert "2 rows of 4 without an answer: lines 3, 5" in done.stderr
    found = _read(tmp_path / "answers.parquet")
    assert found["row"].to_pylist() == [1, 2, 3, 4]
    assert [answer is None for answer in found["prediction"].to_pylist()] == [False, True, False, True]
    shown = pipetrain("predict", run, "--input", tmp_path / "new.csv", "--output", "-").stdout.splitlines()
    assert (shown[2], shown[4]) == ("2,", "4,")
    pipetrain("predict", run, "--input", tmp_path / "new.csv", "--output", tmp_path / "answers.npz")
    with np.load(tmp_path / "answers.npz") as arrays:
        assert np.isnan(arrays["y"][:, 0]).tolist() == [False, True, False, True]
        np.testing.assert_allclose(
            arrays["y"][[0, 2], 0], np.array(found["prediction"].to_pylist())[[0, 2]].astype(float)
        )


def test_the_index_that_pandas_wrote_is_the_key(tmp_path: Path) -> None:
    frame = _table().to_pandas().set_index("tag")[["mass_g", "species"]]
    frame.to_parquet(tmp_path / "rows.parquet")
    job = JOB.format(units="classes", loss="cross_entropy", target="species", columns="{}", validation=0.25)
    (tmp_path / "job.yaml").write_text(job.replace("rows.csv", "rows.parquet"))
    assert pipetrain("train", tmp_path / "job.yaml", "--local", "--run-dir", tmp_path / "run").returncode == 0
    frame[["mass_g"]].to_parquet(tmp_path / "new.parquet")
    pipetrain("predict", tmp_path / "run", "--input", tmp_path / "new.parquet", "--output", tmp_path / "answers.csv")
    assert _read(tmp_path / "answers.csv")["tag"].to_pylist() == frame.index.tolist()


def test_many_rows_are_answered_block_by_block_as_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _trained(tmp_path, "species", "cross_entropy", "classes")
    found = []
    for numbers in (predicting._BLOCK_NUMBERS, 1):
        monkeypatch.setattr(predicting, "_BLOCK_NUMBERS", numbers)
        pipetrain("predict", run, "--input", tmp_path / "rows.csv", "--output", tmp_path / "answers.parquet")
        found.append(_read(tmp_path / "answers.parquet"))
    assert found[0].equals(found[1])
