"""The section `data` of a job file: what contradicts itself, and that it survives being written."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.job.spec import parse_job
from coordinator.job.yaml_text import read_yaml
from stages.errors import InvalidJob


def document(loss: str = "cross_entropy", units: Any = "classes", **data: Any) -> dict[str, Any]:
    return {
        "model": {"layers": [{"linear": {"units": 4}}, {"linear": {"units": units}}], "loss": loss},
        "data": {"source": "/d/trees.csv", **data},
        "training": {"epochs": 3, "batch_size": 32, "optimizer": {"sgd": {"learning_rate": 0.1}}},
    }


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (document("mse"), "model.layers[1].linear.units: got 'classes', but mse takes numbers, must be a whole "
         "number; or write loss: cross_entropy"),
        (document("binary_cross_entropy"), "model.layers[1].linear.units: got 'classes', but binary_cross_entropy "
         "takes numbers, must be 1, an output for the second of two classes; or write loss: cross_entropy"),
        (document(columns={"k": {"kind": "category", "missing": "mean"}}), "data.columns.k.missing: got 'mean', but a "
         "category has none, must be error, drop or most_frequent"),
        (document(columns={"k": {"kind": "category", "scale": "minmax"}}), "data.columns.k.scale: got 'minmax', but "
         "only numbers are scaled; remove it, or write kind: number"),
        (document(stratified=True, group="k"), "data.stratified: got true, but data.group is given too, which decides "
         "by groups; remove one"),
        (document(columns={"k": "numbr"}), "data.columns.k.kind: got 'numbr', must be number, category, drop or key; "
         "did you mean number?"),
        (document(validation=-1), "data.validation: got -1, must be a share of the rows between 0 and 1, a number of "
         "rows, a second source, or 0 for none"),
    ],
    ids=range(7),
)  # fmt: skip
def test_contradictions_are_told(wrong: dict[str, Any], expected: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        parse_job(wrong)
    assert caught.value.problems == (expected,)


def test_columns_may_have_numbers_as_names() -> None:
    spec = parse_job(document(target=0, columns={1: "drop"}, group=2))
    assert (spec.data.target, list(spec.data.columns), spec.data.group) == (("0",), ["1"], "2")


def test_columns_are_for_tables() -> None:
    wrong = document(units=3, source="digits", columns={"k": "drop"}, group="k")
    wrong["model"]["input"] = [64]
    with pytest.raises(InvalidJob) as caught:
        parse_job(wrong)
    assert [line.partition(": got")[0] for line in caught.value.problems] == ["data.columns", "data.group"]


@pytest.mark.parametrize("none", [0, 0.0, None, "none"])
def test_no_validation_has_four_spellings(none: Any) -> None:
    spec = parse_job(document(validation=none))
    assert spec == parse_job(document(validation=0))
    assert spec.document()["data"]["validation"] == 0


def test_a_job_on_a_table_survives_being_written() -> None:
    columns = {"id": "drop", "island": "category", "age": {"missing": "median"}, "mass_g": {"scale": "minmax"}}
    spec = parse_job(document(target="species", columns=columns, missing="drop", validation=30, stratified=False))
    assert parse_job(read_yaml(spec.to_yaml())[0]) == spec
    assert spec.document()["data"]["columns"] == columns
    assert hash(spec) == hash(parse_job(spec.document()))
