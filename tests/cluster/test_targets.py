"""The target of a table: classes and their order, numbers and their scale, and what does not fit the loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cluster.data.sources import load_data
from tests.cluster.tables import problems_of, rules_of, table, table_job


def test_a_gap_in_the_target_is_never_filled(tmp_path: Path) -> None:
    path = table(tmp_path, "a,y\n1,2\n2,\n3,4\n4,5\n")
    (line,) = problems_of(table_job(path, "mse", 1, data={"missing": "mean"}))
    assert line.startswith("empty cells in y (1, line 3); ")
    assert line.endswith("rows without y, which is no input, can only be dropped")
    data = load_data(table_job(path, "mse", 1, data={"missing": "drop", "validation": 1}))
    assert (len(data.train), len(data.validation)) == (2, 1)


def test_truth_values_are_numbers_as_inputs_and_classes_as_targets(tmp_path: Path) -> None:
    path = table(tmp_path, "a,b,y\n" + "true,1,no\nfalse,2,yes\n" * 4)
    data = load_data(table_job(path, data={"scale": "none", "validation": 0}))
    assert data.train.x[:2].tolist() == [[1, 1], [0, 2]]
    path = table(tmp_path, "a,y\n" + "1,true\n2,false\n" * 4)
    data = load_data(table_job(path, data={"validation": 0}))
    assert data.preprocessing is not None
    assert (data.preprocessing.target.classes, data.train.y[:2].tolist()) == (("false", "true"), [1, 0])


@pytest.mark.parametrize(
    ("values", "units", "classes", "labels"),
    [
        ("0 1 2 0", 3, "0 1 2", [0, 1, 2, 0]),
        ("0 2 0 2", 4, "0 1 2 3", [0, 2, 0, 2]),  # labels that the model knows keep their numbers
        ("1 2 3 1", 3, "1 2 3", [0, 1, 2, 0]),
        ("100 20 3 20", "classes", "3 20 100", [2, 1, 0, 1]),
        ("1.0 2.0 1.0 2.0", "classes", "1 2", [0, 1, 0, 1]),
        ("1000001 1000002 5 5", "classes", "5 1000001 1000002", [1, 2, 0, 0]),
        ("b a B b", "classes", "B a b", [2, 1, 0, 2]),
    ],
)
def test_classes_are_numbered_in_sorted_order(
    values: str, units: object, classes: str, labels: list[int], tmp_path: Path
) -> None:
    path = table(tmp_path, "a,y\n" + "".join(f"{i},{value}\n" for i, value in enumerate(values.split())))
    data = load_data(table_job(path, units=units, data={"validation": 0}))
    assert data.preprocessing is not None
    assert data.preprocessing.target.classes == tuple(classes.split())
    assert data.train.y.tolist() == labels
    again = load_data(data.spec)  # as workers read it: the job with all values filled in
    assert again.fingerprint() == data.fingerprint()


def test_a_target_that_does_not_fit_the_loss_is_told(tmp_path: Path) -> None:
    path = table(tmp_path, "a,y\n" + "1,0.5\n2,1.5\n" * 4)
    assert problems_of(table_job(path)) == [
        "column 'y', the target, holds numbers such as 0.5, but the loss takes classes; write model.loss: mse to "
        "predict numbers, or data.columns: {y: category}"
    ]
    assert rules_of(table_job(path, data={"columns": {"y": "category"}})).target.classes == ("0.5", "1.5")
    path = table(tmp_path, "a,y\n" + "1,cat\n2,dog\n3,cow\n" * 4)
    assert problems_of(table_job(path, "mse", 1))[0].startswith("column 'y', the target, holds texts such as 'cat'")
    assert problems_of(table_job(path, "binary_cross_entropy", 1)) == [
        "column 'y', the target, has 3 classes (cat, cow, dog), but binary_cross_entropy takes two; write model.loss: "
        "cross_entropy, with units: classes in the last layer"
    ]
    assert problems_of(table_job(path, units=4))[0].endswith(
        "has 3 classes (cat, cow, dog), but the last layer gives 4 outputs; write units: classes in the last layer"
    )
    path = table(tmp_path, "a,y\n" + "1,cat\n2,cat\n" * 4)
    assert problems_of(table_job(path)) == ["column 'y', the target, has 1 class (cat); there is nothing to tell apart"]


def test_binary_cross_entropy_takes_two_texts(tmp_path: Path) -> None:
    path = table(tmp_path, "a,y\n" + "1,no\n2,yes\n" * 4)
    data = load_data(table_job(path, "binary_cross_entropy", 1, data={"validation": 0}))
    assert (data.train.y[:2].tolist(), str(data.train.y.dtype)) == ([[0], [1]], "float32")
    assert data.preprocessing is not None
    assert data.preprocessing.target.classes == ("no", "yes")


def test_ignored_labels_are_no_class(tmp_path: Path) -> None:
    path = table(tmp_path, "a,y\n1,5\n2,-100\n3,7\n4,5\n")
    data = load_data(table_job(path, {"cross_entropy": {"ignore_index": -100}}, data={"validation": 0}))
    assert data.preprocessing is not None
    assert (data.preprocessing.target.classes, data.train.y.tolist()) == (("5", "7"), [0, -100, 1, 0])


def test_several_targets_keep_their_order_and_are_scaled_each(tmp_path: Path) -> None:
    path = table(tmp_path, "a,u,v\n" + "".join(f"{i},{10 * i},{-i}\n" for i in range(10)))
    columns = {"v": {"scale": "minmax"}}
    data = load_data(table_job(path, "mse", 2, data={"target": ["v", "u"], "columns": columns, "validation": 0}))
    assert data.preprocessing is not None
    assert data.preprocessing.target.offsets == (-9.0, 45.0)
    np.testing.assert_allclose(data.train.y[:, 0], (9 - np.arange(10)) / 9, rtol=1e-6)
    np.testing.assert_allclose(data.train.y[:, 1].std(), 1, rtol=1e-6)


@pytest.mark.parametrize(("loss", "scaled"), [("mse", True), ("l1", True), ("huber", True), ("sum_of_squares", False)])
def test_targets_of_mean_losses_are_standardised(loss: str, scaled: bool, tmp_path: Path) -> None:
    path = table(tmp_path, "a,y\n" + "".join(f"{i},{1000 * i}\n" for i in range(10)))
    y = load_data(table_job(path, loss, 1, data={"validation": 0})).train.y
    assert (abs(float(y.std()) - 1) < 1e-6) is scaled
    off = load_data(table_job(path, loss, 1, data={"validation": 0, "scale": "none"})).train.y
    assert off[:, 0].tolist() == [1000 * i for i in range(10)]


def test_labels_of_positions_are_several_targets(tmp_path: Path) -> None:
    path = table(tmp_path, "s,t,u,v\n" + "".join(f"{i % 5},{(i + 1) % 5},{i % 3},{(i + 1) % 3}\n" for i in range(20)))
    model = {"input": [2], "vocabulary": 5, "layers": [{"embedding": {"units": 4}}, {"linear": {"units": 3}}]}
    data = load_data(table_job(path, model=model, data={"target": ["u", "v"], "validation": 0}))
    assert data.train.y[:2].tolist() == [[0, 1], [1, 2]]
    table(tmp_path, "s,t,u,v\n" + "".join(f"{i % 5},0,{i % 3},{7 if i == 4 else 1}\n" for i in range(20)))
    assert problems_of(table_job(path, model=model, data={"target": ["u", "v"]})) == [
        "line 6, column 'v': got 7, must be a whole number from 0 to 2, a class's number"
    ]


def test_targets_outside_of_what_the_loss_takes_are_told_by_row(tmp_path: Path) -> None:
    path = table(tmp_path, "a,y\n" + "".join(f"{i},{3 if i == 5 else i % 2}\n" for i in range(20)))
    assert problems_of(table_job(path, "binary_cross_entropy", 1)) == [
        "line 7, column 'y': got 3, must be from 0 to 1 for this loss"
    ]


def test_a_category_as_the_target_of_a_loss_of_numbers_is_told(tmp_path: Path) -> None:
    path = table(tmp_path, "a,y\n" + "1,2\n3,4\n" * 5)
    assert problems_of(table_job(path, "mse", 1, data={"columns": {"y": "category"}})) == [
        "column 'y', the target, is a category, but the loss takes numbers; write model.loss: cross_entropy, with "
        "units: classes in the last layer"
    ]


def test_labels_in_several_columns_do_not_say_how_many_classes_there_are(tmp_path: Path) -> None:
    path = table(tmp_path, "a,u,v\n" + "1,0,1\n3,1,0\n" * 5)
    assert problems_of(table_job(path, data={"target": ["u", "v"]})) == [
        "units: classes needs one target whose values are the classes, but the targets are labels in u, v; write the "
        "number of classes"
    ]
