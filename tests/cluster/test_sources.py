from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from cluster.data.questions import load_questions
from cluster.data.sources import load_arrays, load_data
from coordinator.job.spec import JobSpec, parse_job
from coordinator.job.yaml_text import write_yaml
from stages.data import train_validation_split
from stages.errors import InvalidData
from tests.file_server import files_served
from tests.jobs import pipetrain_here


def job(source: object, loss: Any = "cross_entropy", **changes: Any) -> JobSpec:
    """Return a job with 2 inputs and 3 outputs."""
    outputs = changes.pop("outputs", 3)
    scale = {"scale": "none"} if str(source).endswith((".csv", ".parquet")) else {}
    data = {"source": str(source), **scale, **changes.pop("data", {})}
    layers = changes.pop("layers", [{"linear": {"units": outputs}}])
    return parse_job(
        {
            "seed": 7,
            "model": {"input": changes.pop("input", [2]), "layers": layers, "loss": loss},
            "data": data,
            "training": {"epochs": 1, "batch_size": 2, "optimizer": {"sgd": {"learning_rate": 0.1}}},
            **changes,
        }
    )


def problem(spec: JobSpec) -> str:
    with pytest.raises(InvalidData) as caught:
        load_data(spec)
    (line,) = caught.value.problems
    assert len(line.splitlines()) == 1
    return line


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


X = np.arange(20.0).reshape(10, 2)
Y = np.arange(10) % 3
CSV = "a,kind,b\n" + "".join(f"{2 * i},{i % 3},{2 * i + 1}\n" for i in range(10))


def csv(path: Path, text: str = CSV) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_digits_are_scaled_and_split_as_documented() -> None:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    train_rows, validation_rows = train_validation_split(1797, 0.2, 7)
    data = load_data(job("digits", input=[8, 8], layers=["flatten", {"linear": {"units": 10}}]))
    assert np.array_equal(data.train.x, (x[train_rows] / 16).astype(np.float32))
    assert np.array_equal(data.validation.x, (x[validation_rows] / 16).astype(np.float32))
    assert np.array_equal(data.train.y, y[train_rows])
    assert (str(data.train.x.dtype), str(data.train.y.dtype), data.preprocessing) == ("float32", "int64", None)


def test_diabetes_has_mean_0_and_deviation_1_in_every_column() -> None:
    data = load_data(job("diabetes", "mse", input=[10], outputs=1, precision="float64"))
    for parts in ((data.train.x, data.validation.x), (data.train.y, data.validation.y)):
        both = np.concatenate(parts)
        np.testing.assert_allclose(both.mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(both.std(axis=0), 1, atol=1e-12)
    assert data.train.y.shape == (442 - 88, 1)


def test_all_formats_give_the_same_data(tmp_path: Path) -> None:
    table = pa.table({"a": X[:, 0], "kind": Y, "b": X[:, 1]})
    parquet.write_table(table, tmp_path / "d.parquet")
    sources = [npz(tmp_path / "d.npz", x=X, y=Y), csv(tmp_path / "d.csv"), tmp_path / "d.parquet"]
    found = []
    for source in sources:
        target = {"target": "kind"} if source.suffix != ".npz" else {}
        data = load_data(job(source, data=target))
        found.append([data.train.fingerprint(), data.validation.fingerprint()])
        assert sorted(map(tuple, np.concatenate([data.train.x, data.validation.x]).tolist())) == [
            *map(tuple, X.tolist())
        ]
    assert found == [found[0]] * 3


def test_a_column_called_y_is_the_target_by_default(tmp_path: Path) -> None:
    data = load_data(job(csv(tmp_path / "d.csv", CSV.replace("b", "y", 1)), "mse", outputs=1))
    assert data.preprocessing is not None
    assert data.preprocessing.columns == ("a", "kind")
    assert (str(data.train.y.dtype), data.train.y.shape) == ("float32", (8, 1))
    assert problem(job(csv(tmp_path / "e.csv"), "mse", outputs=1)) == (
        f"{tmp_path}/e.csv: no column is called y, target, label or class; name the column to predict, as in "
        "data.target: NAME, of: a, kind, b"
    )


def test_several_targets_keep_their_given_order(tmp_path: Path) -> None:
    spec = job(csv(tmp_path / "d.csv"), "mse", outputs=2, input=[1], data={"target": ["b", "a"]})
    data = load_data(spec)
    assert np.array_equal(data.train.y[:, 0], data.train.y[:, 1] + 1)


def test_a_second_source_is_the_validation_and_its_columns_are_found_by_name(tmp_path: Path) -> None:
    other = csv(tmp_path / "v.csv", "extra,kind,b,a\n9,1,3,2\n")
    spec = job(csv(tmp_path / "d.csv"), data={"target": ["kind"], "validation": str(other)})
    data = load_data(spec)
    assert len(data.train) == 10
    assert data.train.x.tolist() == X.tolist()
    assert (data.validation.x.tolist(), data.validation.y.tolist()) == ([[2, 3]], [1])


def test_the_fingerprint_follows_the_data(tmp_path: Path) -> None:
    spec = job(npz(tmp_path / "d.npz", x=X, y=Y))
    first = load_data(spec).fingerprint()
    assert load_data(spec).fingerprint() == first
    npz(tmp_path / "d.npz", x=X + (X == 19), y=Y)
    assert load_data(spec).fingerprint() != first


def test_file_urls_are_local_paths(tmp_path: Path) -> None:
    npz(tmp_path / "d.npz", x=X, y=Y)
    local = load_data(job(tmp_path / "d.npz")).fingerprint()
    assert load_data(job(f"file://{tmp_path}/d.npz")).fingerprint() == local
    assert problem(job(f"file://{tmp_path}/e.npz")) == f"file://{tmp_path}/e.npz: no such file"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with files_served(tmp_path) as address:
        yield address


def test_a_web_server_without_ranges_is_read(server: str, tmp_path: Path) -> None:
    npz(tmp_path / "d.npz", x=X, y=Y)
    assert len(load_data(job(f"{server}/d.npz?version=2")).train) == 8
    assert problem(job(f"{server}/e.npz")) == f"{server}/e.npz: no such file"


def test_other_sources_are_held_to_the_same_model(tmp_path: Path) -> None:
    spec = job(csv(tmp_path / "d.csv"), data={"target": "kind"})
    test = load_arrays(spec, str(npz(tmp_path / "t.npz", x=X[:4], y=Y[:4])))
    assert (test.x.tolist(), test.y.tolist()) == (X[:4].tolist(), [0, 1, 2, 0])
    assert load_questions(spec, str(npz(tmp_path / "x.npz", x=X[:4])), None).x.tolist() == X[:4].tolist()
    rules = load_data(spec).preprocessing
    assert load_questions(spec, str(csv(tmp_path / "x.csv", "b,a\n1,2\n")), rules).x.tolist() == [[2, 1]]
    assert load_questions(spec, str(tmp_path / "d.csv"), rules).x.tolist() == X.tolist()
    with pytest.raises(InvalidData, match=r"x\.csv: has no column 'kind', only b, a"):
        load_arrays(spec, str(tmp_path / "x.csv"), rules)
    with pytest.raises(InvalidData, match=r"^data source: got 'digit', must be .* did you mean digits\?$"):
        load_questions(spec, "digit", None)


NO_PICKLE = (
    "array x holds Python objects, which are not read, since reading them can run code; save numbers: "
    "numpy.savez(file, x=…) of numpy.array(values, dtype='float32')"
)


def bad(value: float) -> np.ndarray[Any, Any]:
    x = X.copy()
    x[3, 1] = value
    return x


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"x": X}, "has no array y; write it with numpy.savez(file, x=x, y=y)"),
        ({"y": Y, "z": X}, "has no array x, only y, z; write data.arrays: {x: NAME, y: y}"),
        ({"x": X, "y": Y[:9]}, "x has 10 rows but y has 9; each row of x needs its row of y"),
        ({"x": X[:, :1], "y": Y}, "has 1 numbers a row in x, but model.input is [2] = 2; change one"),
        ({"x": X.ravel(), "y": Y}, "x has the shape [20], must be (rows, 2)"),
        ({"x": X[:0], "y": Y[:0]}, "holds no rows"),
        ({"x": bad(np.nan), "y": Y}, "x[3, 1] is nan; remove the row or fill the value in"),
        ({"x": bad(-np.inf), "y": Y}, "x[3, 1] is -inf; remove the row or fill the value in"),
        ({"x": bad(1e300), "y": Y}, "x[3, 1] is 1e+300, too large for float32; scale it or use float64"),
        ({"x": X.astype("U3"), "y": Y}, "x is of type <U3, must be of real numbers"),
        ({"x": X, "y": Y * 1j}, "y is of type complex128, must be of real numbers"),
        ({"x": X, "y": Y + 1}, "label 3 in y[2, 0] is not a class from 0 to 2; number the classes from 0 or give the "
         "last layer more units"),
        ({"x": X, "y": -Y}, "label -1 in y[1, 0] is not a class from 0 to 2; number the classes from 0 or give the "
         "last layer more units"),
        ({"x": X, "y": Y + 0.5}, "label 0.5 in y[0, 0] is not a whole number; cross_entropy needs classes 0 to 2"),
        ({"x": X, "y": Y * np.nan}, "label nan in y[0, 0] is not a whole number; cross_entropy needs classes 0 to 2"),
        ({"x": X, "y": np.eye(10)}, "y has 10 numbers a row, must be one label a row from 0 to 2; cross_entropy takes "
         "the class's number, not a vector"),
        ({"x": X[:2], "y": Y[:2]}, "a share of 0.2 of its 2 rows leaves none for validation; change data.validation or "
         "give a second source"),
        ({"x": np.array([{}]), "y": Y}, NO_PICKLE),
    ],
    ids=range(18),
)  # fmt: skip
def test_arrays_that_do_not_fit_are_named_in_one_line(arrays: dict[str, Any], expected: str, tmp_path: Path) -> None:
    path = npz(tmp_path / "d.npz", **arrays)
    assert problem(job(path)) == f"{path}: {expected}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CSV.replace("\n4,", "\nfour,"), "line 4, column 'a': got 'four', must be a number as most cells of this "
         "column; or write data.columns: {a: category}"),
        (CSV.replace("\n4,", "\n,"), "empty cells in a (1, line 4); fill them in, or write data.missing: drop, mean, "
         "median or most_frequent (for categories drop or most_frequent)"),
        (CSV.replace("\n4,", "\n4.5e999,"), "line 4, column 'a': got inf, must be a finite number, or empty"),
        (CSV.replace("\n4,", "\n4e200,"), "line 4, column 'a': got 4e+200, must be small enough for float32; scale "
         "it, or write precision: float64"),
        (CSV.replace("4,2,5", "4,7,5"), "column 'kind', the target, has 4 classes (0, 1, 2, 7), but the last "
         "layer gives 3 outputs; write units: classes in the last layer"),
        (CSV.replace("4,2,5", "4,1.5,5"), "column 'kind', the target, holds numbers such as 1.5, but the loss takes "
         "classes; write model.loss: mse to predict numbers, or data.columns: {kind: category}"),
        (CSV.replace("kind", "kin"), "has no column 'kind'; did you mean 'kin'?"),
        (CSV.replace("kind", "a"), "has several columns called 'a'; give each its own name"),
        (CSV.partition("\n")[2], "line 1 looks like data, not like names: 0, 0, 1; write data.csv: "
         "{header: false} if the file has no line of names (its columns are then called c0, c1, …), {header: true} if "
         "these are names"),
        (CSV.partition("\n")[0] + "\n", "holds no rows"),
        ("a,kind\n" + "1,2\n" * 10, "model.input is [2] = 2, but the columns give 1 number a row: a; leave model.input "
         "out"),
        ("kind\n1\n", "no column is left for the inputs; the target takes kind"),
        ("", "is empty; it must hold a table"),
    ],
    ids=range(13),
)  # fmt: skip
def test_tables_that_do_not_fit_are_named_in_one_line(text: str, expected: str, tmp_path: Path) -> None:
    path = csv(tmp_path / "d.csv", text)
    assert problem(job(path, data={"target": ["kind"]})) == f"{path}: {expected}"


def test_targets_of_another_width_than_the_outputs_are_named(tmp_path: Path) -> None:
    path = npz(tmp_path / "d.npz", x=X, y=Y)
    assert problem(job(path, "mse")) == f"{path}: has 1 numbers a row in y, but the last layer gives 3; change one"
    path = csv(tmp_path / "d.csv")
    spec = job(path, "mse", input=[1], data={"target": ["a", "b"]})
    assert problem(spec) == f"{path}: has 2 target columns (a, b), but the last layer gives 3; change one"


def test_targets_that_a_loss_cannot_take_are_named(tmp_path: Path) -> None:
    path = npz(tmp_path / "d.npz", x=X, y=Y)
    told = f"{path}: y[2, 0] is 2, but the loss takes targets from 0 to 1"
    assert problem(job(path, "binary_cross_entropy", outputs=1)) == told
    ignoring = {"cross_entropy": {"ignore_index": -1}}
    path = npz(tmp_path / "d.npz", x=X, y=np.where(Y == 2, -1, Y))
    assert load_data(job(path, ignoring)).train.y.min() == -1
    path = npz(tmp_path / "d.npz", x=X, y=np.where(Y == 2, -2, Y))
    assert problem(job(path, ignoring)).startswith(f"{path}: label -2 in y[2, 0] is not a class from 0 to 2;")
    path = npz(tmp_path / "d.npz", x=X, y=np.full(10, -1))
    told = f"{path}: every label for training is -1, which the loss ignores; change ignore_index"
    assert problem(job(path, ignoring)) == told
    whole = npz(tmp_path / "whole.npz", x=X, y=Y)
    second = job(whole, ignoring, data={"validation": str(path)})
    assert problem(second) == told.replace("training", "validation")


def test_evaluation_of_ignored_labels_alone_has_no_loss(tmp_path: Path) -> None:
    spec = job(npz(tmp_path / "d.npz", x=X, y=Y), {"cross_entropy": {"ignore_index": -1}})
    (tmp_path / "job.yaml").write_text(write_yaml(spec.document()))
    done = pipetrain_here("train", tmp_path / "job.yaml", "--local", "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    path = npz(tmp_path / "n.npz", x=X, y=np.full(10, -1))
    refused = pipetrain_here("evaluate", tmp_path / "run", "--data", path)
    told = f"error: {path}: every label for evaluation is -1, which the loss ignores; give other data\n"
    assert (refused.returncode, refused.stderr) == (2, told)


@pytest.mark.parametrize("ending", [".npz", ".csv", ".parquet"])
def test_files_that_cannot_be_read_are_named_in_one_line(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"d{ending}"
    assert problem(job(path)) == f"{path}: no such file"
    path.mkdir()
    assert problem(job(path)) == f"{path}: is a directory, must be a file"
    path.rmdir()
    contents = [b"", b"\x00\xff" * 40, b"PK\x03\x04 not really"]
    if ending == ".npz":
        whole = io.BytesIO()
        np.savez_compressed(whole, x=X, y=Y)
        contents += [whole.getvalue()[:200], whole.getvalue().replace(b"x.npy", b"\xff.npy")]
    for content in contents:
        path.write_bytes(content)
        assert problem(job(path)).startswith(f"{path}: ")


def test_a_single_array_is_not_an_archive(tmp_path: Path) -> None:
    with (tmp_path / "d.npz").open("wb") as file:
        np.save(file, X)
    assert problem(job(tmp_path / "d.npz")) == (
        f"{tmp_path}/d.npz: holds a single array, must hold x and y; write it with numpy.savez(file, x=x, y=y)"
    )


def test_rows_of_token_numbers_are_tokens(tmp_path: Path) -> None:
    """Tokens are whole numbers below `model.vocabulary`. Each position has a label or, after `flatten`, each row."""
    layers = [{"embedding": {"units": 4}}, {"linear": {"units": 3}}]
    model = {"input": [2], "vocabulary": 5, "layers": layers, "loss": "cross_entropy"}
    tokens, labels = np.arange(20).reshape(10, 2) % 5, np.arange(20).reshape(10, 2) % 3
    data = load_data(job(npz(tmp_path / "d.npz", x=tokens, y=labels), model=model))
    assert (data.train.x.dtype.kind, data.train.x.shape, data.train.y.shape) == ("u", (8, 2), (8, 2))
    assert data.train.inputs(slice(0, 2)).shape == (1, 4)
    model["layers"] = [layers[0], "flatten", layers[1]]
    assert load_data(job(npz(tmp_path / "d.npz", x=tokens, y=Y), model=model)).train.y.shape == (8,)
    for wrong in (5, -1, 0.5):
        bad_tokens = tokens.astype(float)
        bad_tokens[3, 1] = wrong
        path = npz(tmp_path / "d.npz", x=bad_tokens, y=Y)
        told = f"{path}: token {float(wrong)} in x[3, 1] is not in the vocabulary of 5 tokens; they are numbered from 0"
        assert problem(job(path, model=model)) == told
