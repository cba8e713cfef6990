"""How the inputs of a table become numbers: kinds, gaps, categories, scaling, and what is wrong with a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from cluster.data.questions import load_questions
from cluster.data.sources import load_arrays, load_data
from cluster.data.tables.preprocessing import CategoryRule, NumberRule, Preprocessing
from stages.errors import InvalidData
from tests.cluster.tables import problems_of, rules_of, table, table_job

PENGUINS = """species,island,bill,mass,sex
Adelie,Torgersen,39.1,3750,male
Adelie,Torgersen,39.5,3800,female
Adelie,Biscoe,,3250,female
Gentoo,Biscoe,46.1,4500,female
Gentoo,Biscoe,50.0,5700,male
Gentoo,Biscoe,48.7,NA,
Chinstrap,Dream,46.5,3500,female
Chinstrap,Dream,50.0,3900,male
Chinstrap,Dream,51.3,3650,male
"""
NAMED = {"target": "species", "missing": "drop", "columns": {"island": "category", "sex": "category"}}


def test_a_table_with_text_and_gaps_is_read_and_said(tmp_path: Path) -> None:
    path = table(tmp_path, PENGUINS)
    data = load_data(table_job(path, data={**NAMED, "validation": 0}))
    assert data.said[0] == (
        "inputs (4): island, bill, mass, sex · target: species (classes: Adelie, Chinstrap, Gentoo) · 7 rows train, no "
        "validation · 2 rows dropped: empty cells in bill, mass, sex"
    )
    assert data.preprocessing is not None
    assert data.preprocessing.features == (
        *("island=Biscoe", "island=Dream", "island=Torgersen", "bill", "mass", "sex=female", "sex=male"),
    )
    assert data.train.y.tolist() == [0, 0, 2, 2, 1, 1, 1]
    assert data.train.x[:, :3].tolist() == [[0, 0, 1]] * 2 + [[1, 0, 0]] * 2 + [[0, 1, 0]] * 3
    np.testing.assert_allclose(data.train.x[:, 3:5].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(data.train.x[:, 3:5].std(axis=0), 1, atol=1e-6)
    model = data.spec.document()["model"]
    assert (model["input"], model["layers"]) == ([7], [{"linear": {"units": 3, "bias": True}}])
    assert data.spec.document()["data"]["target"] == ["species"]


def test_all_columns_with_gaps_are_listed_at_once(tmp_path: Path) -> None:
    data = {**NAMED, "missing": "error"}
    assert problems_of(table_job(table(tmp_path, PENGUINS), data=data)) == [
        "empty cells in bill (1, line 4), mass (1, line 7), sex (1, line 7); fill them in, or write data.missing: "
        "drop, mean, median or most_frequent (for categories drop or most_frequent)"
    ]
    data["columns"] = {**NAMED["columns"], "sex": {"kind": "category", "missing": "drop"}}  # type: ignore[dict-item]
    assert problems_of(table_job(tmp_path / "d.csv", data=data))[0].startswith("empty cells in bill (1, line 4), mass")


def test_gaps_are_filled_with_what_the_training_rows_have(tmp_path: Path) -> None:
    text = "a,b,c,k,y\n1,1,5,u,0\n2,,7,v,1\n,4,7,u,0\n9,5,,,1\n8,6,5,v,0\n"
    rule = {
        name: {"missing": how} for name, how in zip("abck", ("mean", "median", *2 * ["most_frequent"]), strict=True)
    }
    rule["k"]["kind"] = "category"
    path = table(tmp_path, text)
    rules = rules_of(table_job(path, data={"columns": rule, "validation": 0}))
    fills = [one.fill for one in rules.inputs]
    assert fills == [5.0, 4.5, 5.0, "u"]  # (1+2+9+8)/4; between 4 and 5; of 5 and 7 the least; of u and v the first
    x = load_data(table_job(path, data={"columns": rule, "validation": 0, "scale": "none"})).train.x
    assert x.tolist() == [[1, 1, 5, 1, 0], [2, 4.5, 7, 0, 1], [5, 4, 7, 1, 0], [9, 5, 5, 1, 0], [8, 6, 5, 0, 1]]


def test_all_wrong_cells_of_a_file_are_told_in_one_go(tmp_path: Path) -> None:
    rows = [[str(i), str(2 * i), "u" if i % 2 else "v", str(i % 3)] for i in range(60)]
    rows[3][0], rows[5][1], rows[9][1], rows[11][0] = "four", "inf", "-inf", "x,y"
    text = "a,b,c,y\n" + "".join(f"{','.join(f'{cell!r}' if ',' in cell else cell for cell in row)}\n" for row in rows)
    path = table(tmp_path, text.replace("'", '"'))
    right = "must be a number as most cells of this column; or write data.columns: {a: category}"
    assert problems_of(table_job(path)) == [
        f"line 5, column 'a': got 'four', {right}",
        f"line 13, column 'a': got 'x,y', {right}",
        "line 7, column 'b': got inf, must be a finite number, or empty",
        "line 11, column 'b': got -inf, must be a finite number, or empty",
    ]
    for i in range(20, 50):
        rows[i][0] = "?"
    table(tmp_path, "a,b,c,y\n" + "".join(f"{','.join(row)}\n" for row in rows[12:]))
    assert problems_of(table_job(path)) == [
        "column 'a' holds 18 numbers and 30 texts such as '?'; write data.columns: {a: category}, or number, and mend "
        "the texts"
    ]
    table(tmp_path, "a,y\n" + "".join(f"{'?' if i % 4 == 0 else i},{i % 2}\n" for i in range(200)))
    lines = problems_of(table_job(path))
    assert (len(lines), lines[-1]) == (21, "and 30 more problems")


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([f"name {i}" for i in range(200)], "column 'c' has 200 different texts in 200 rows; write data.columns: {c: "
         "drop}, or c: category for an input for each of them"),
        ([str(i % 7) for i in range(200)], "column 'c' holds texts that are numbers, such as '0'; write data.columns: "
         "{c: number}, or c: category"),
        (np.arange(200).astype("datetime64[D]"), "column 'c' holds dates; write data.columns: {c: drop}, or c: number "
         "for days since 1970-01-01"),
        ([[i] for i in range(200)], "column 'c' is of type list<element: int64>, which is no number; write c: drop"),
    ],
    ids=range(4),
)  # fmt: skip
def test_columns_whose_meaning_is_not_clear_are_asked_about(column: object, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    parquet.write_table(pa.table({"a": np.arange(200), "c": column, "y": np.arange(200) % 2}), path)
    assert problems_of(table_job(path)) == [expected]
    assert rules_of(table_job(path, data={"columns": {"c": "drop"}})).left_out == (("c", "data.columns says so"),)


def test_a_kind_that_is_given_is_followed(tmp_path: Path) -> None:
    days = np.arange(8).astype("datetime64[D]")
    columns = {"n": [f"{i}e1" for i in range(8)], "d": days, "k": [3, 20, 3, 20, 3, 100, 3, 20], "y": [0, 1] * 4}
    path = tmp_path / "d.parquet"
    parquet.write_table(pa.table(columns), path)
    kinds = {"n": "number", "d": "number", "k": "category"}
    data = load_data(table_job(path, data={"columns": kinds, "scale": "none", "validation": 0}))
    assert data.preprocessing is not None
    assert data.preprocessing.features == ("n", "d", "k=3", "k=20", "k=100")  # numbers are sorted as numbers
    assert data.train.x[:3].tolist() == [[0, 0, 1, 0, 0], [10, 1, 0, 1, 0], [20, 2, 1, 0, 0]]
    columns["n"] = [*(f"{i}e1" for i in range(7)), "ten"]
    parquet.write_table(pa.table(columns), path)
    (line,) = problems_of(table_job(path, data={"columns": kinds}))
    assert line == "row 8, column 'n': got 'ten', must be a number"


def test_rules_follow_from_the_training_rows_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = [
        f"{a},{k},{y}\n"
        for a, k, y in zip(rng.normal(size=50), rng.integers(0, 3, 50), rng.normal(size=50), strict=True)
    ]
    spec = table_job(table(tmp_path, "a,k,y\n" + "".join(rows)), "mse", 1, data={"columns": {"k": "category"}})
    before, place = load_data(spec), int(np.random.default_rng([7, 3]).permutation(50)[0])
    rows[place] = "1e9,77,-1e9\n"
    table(tmp_path, "a,k,y\n" + "".join(rows))
    after = load_data(spec)
    assert after.preprocessing == before.preprocessing
    assert after.train.fingerprint() == before.train.fingerprint()
    assert after.said[-1] == "1 cell of k with values that no training row has ('77'): 0 in all of its inputs"
    assert after.validation.x[0, 1:].tolist() == [0, 0, 0]


def test_constant_columns_and_very_large_numbers_stay_finite(tmp_path: Path) -> None:
    path = table(tmp_path, "a,b,c,y\n" + "".join(f"0.1,{i}e300,{i}e-300,{i % 2}\n" for i in range(10)))
    data = load_data(table_job(path, data={"validation": 0}))
    x = data.train.x.astype(np.float64)
    assert x[:, 0].tolist() == [0] * 10
    np.testing.assert_allclose(x[:, 1:].std(axis=0), 1, rtol=1e-6)


def test_numbers_are_those_of_scikit_learn(tmp_path: Path) -> None:
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    values = np.random.default_rng(5).normal(100, 7, (300, 2))
    path = table(tmp_path, "a,b,y\n" + "".join(f"{a!r},{b!r},{i % 2}\n" for i, (a, b) in enumerate(values.tolist())))
    for scale, scaler in (("standard", StandardScaler()), ("minmax", MinMaxScaler())):
        x = load_data(table_job(path, data={"scale": scale, "validation": 0}, precision="float64")).train.x
        np.testing.assert_allclose(x, scaler.fit_transform(values), rtol=1e-12, atol=1e-12)


def test_columns_are_found_by_name_in_a_second_source(tmp_path: Path) -> None:
    """The cases train.csv and val.csv: the same rows, columns in another order. Once the target was the last column of
    each file."""
    train = table(tmp_path, "a,y\n" + "".join(f"{i},{10 * i}\n" for i in range(1, 5)), "train.csv")
    second = table(tmp_path, "y,a\n" + "".join(f"{10 * i},{i}\n" for i in range(1, 5)), "val.csv")
    spec = table_job(train, "mse", 1, data={"validation": str(second)})
    data = load_data(spec)
    assert data.validation.fingerprint() == data.train.fingerprint()
    assert data.spec.data.target == ("y",)
    assert load_arrays(data.spec, str(second), data.preprocessing).fingerprint() == data.train.fingerprint()
    assert load_questions(data.spec, str(second), data.preprocessing).x.tolist() == data.train.x.tolist()


def test_a_second_source_is_held_to_the_rules(tmp_path: Path) -> None:
    train = table(tmp_path, "k,a,y\n" + "u,1,no\nv,2,yes\nu,3,no\n" * 3, "train.csv")
    second = table(tmp_path, "y,a,k\nno,1,u\nmaybe,2,w\nyes,many,u\nno,3,\n", "val.csv")
    with pytest.raises(InvalidData) as caught:
        load_data(table_job(train, data={"validation": str(second)}))
    assert [line.removeprefix(f"{second}: ") for line in caught.value.problems] == [
        "empty cells in k (1, line 5); fill them in, remove these rows, or train with data.missing: drop, mean, median "
        "or most_frequent (for categories drop or most_frequent)",
        "line 4, column 'a': got 'many', must be a number",
        "line 3, column 'y': got 'maybe', must be one of the classes no, yes",
    ]
    table(tmp_path, "y,a,k\nno,1,u\nyes,2,w\nno,3,\n", "val.csv")
    data = load_data(table_job(train, data={"validation": str(second), "missing": "drop"}))
    assert len(data.validation) == 2
    assert data.said[1:] == (
        "validation: 1 row dropped: empty cells in k",
        "validation: 1 cell of k with values that no training row has ('w'): 0 in all of its inputs",
    )


def test_an_input_that_does_not_fit_the_model_lists_the_features(tmp_path: Path) -> None:
    path = table(tmp_path, "k,a,y\n" + "u,1,no\nv,2,yes\nu,3,no\n" * 3)
    assert problems_of(table_job(path, model={"input": [2]})) == [
        "model.input is [2] = 2, but the columns give 3 numbers a row: k (2: u, v), a; leave model.input out"
    ]


def test_tokens_in_columns_are_never_scaled(tmp_path: Path) -> None:
    path = table(tmp_path, "s,t,y\n" + "".join(f"{i % 5},{(i + 1) % 5},{i % 3}\n" for i in range(20)))
    layers = [{"embedding": {"units": 4}}, "flatten", {"linear": {"units": "classes"}}]
    model = {"input": [2], "vocabulary": 5, "layers": layers}
    data = load_data(table_job(path, model=model, data={"validation": 0}))
    assert (data.train.x[:3].tolist(), data.train.x.dtype.kind) == ([[0, 1], [1, 2], [2, 3]], "u")
    table(tmp_path, "s,t,y\n" + "".join(f"{i % 6},{i % 5 + i / 40 * (i == 3)},{i % 3}\n" for i in range(20)))
    assert problems_of(table_job(path, model=model)) == [
        "line 7, column 's': got 5, must be a token of the vocabulary, a whole number from 0 to 4",
        "line 13, column 's': got 5, must be a token of the vocabulary, a whole number from 0 to 4",
        "line 19, column 's': got 5, must be a token of the vocabulary, a whole number from 0 to 4",
        "line 5, column 't': got 3.075, must be a token of the vocabulary, a whole number from 0 to 4",
    ]


def test_rules_survive_json(tmp_path: Path) -> None:
    rules = rules_of(table_job(table(tmp_path, PENGUINS), data=NAMED))
    assert Preprocessing.from_document(json.loads(json.dumps(rules.document()))) == rules
    assert {type(rule) for rule in rules.inputs} == {NumberRule, CategoryRule}


def test_the_fingerprint_has_the_rules(tmp_path: Path) -> None:
    """A worker that would fit other rules must notice, even if they gave the same numbers."""
    text = "a,k,y\n" + "1,u,0\n2,v,1\n" * 5
    first = load_data(table_job(table(tmp_path, text), data={"validation": 0}))
    second = load_data(table_job(table(tmp_path, text.replace("v", "w")), data={"validation": 0}))
    assert first.train.fingerprint() == second.train.fingerprint()
    assert first.fingerprint() != second.fingerprint()


def test_roles_that_contradict_each_other_are_told_together(tmp_path: Path) -> None:
    path = table(tmp_path, "a,b,c,d,y\n" + "1,2,3,4,5\n" * 9)
    columns = {"a": "key", "b": "key", "y": "drop"}
    assert problems_of(table_job(path, "mse", 2, data={"target": ["y", "y"], "columns": columns})) == [
        "data.columns.y is drop, but it is the target",
        "data.target names y twice",
        "data.columns has several keys (a, b); a row has one",
    ]
    assert problems_of(table_job(path, "mse", 1, data={"columns": {"aa": "drop", "zzz": "drop"}, "group": "bb"})) == [
        "has no column 'aa', only a, b, c, d, y",
        "has no column 'zzz', only a, b, c, d, y",
        "has no column 'bb', only a, b, c, d, y",
    ]
    data = load_data(table_job(path, "mse", 1, data={"columns": {"a": "key", "b": "drop"}}))
    assert data.preprocessing is not None
    assert (data.preprocessing.key, data.preprocessing.columns) == ("a", ("c", "d"))
    assert data.said[1] == "left out (2): b (data.columns says so), a (it is the key of a row)"


@pytest.mark.parametrize("missing", ["error", "drop", "mean", "median", "most_frequent"])
def test_an_empty_column_is_asked_about(missing: str, tmp_path: Path) -> None:
    """The mean of no numbers would be made up, and to drop the rows would drop all."""
    path = table(tmp_path, "a,b,y\n" + "1,,0\n2,,1\n" * 4)
    assert problems_of(table_job(path, data={"missing": missing})) == [
        "column 'b' is empty in all rows; write data.columns: {b: drop}"
    ]


@pytest.mark.parametrize("kind", ["category", "number"])
def test_lists_are_neither_numbers_nor_categories(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    parquet.write_table(pa.table({"a": [1, 2] * 5, "c": [[1], [2]] * 5, "y": [0, 1] * 5}), path)
    assert problems_of(table_job(path, data={"columns": {"c": kind}})) == [
        f"column 'c' is of type list<element: int64>, which is no {kind}; write c: drop"
    ]


def test_a_dictionary_of_texts_and_times_may_be_categories(tmp_path: Path) -> None:
    times = pa.array([3600, 7200] * 5, pa.time32("s"))
    columns = {"k": pa.array(["u", "v"] * 5).dictionary_encode(), "t": times, "y": [0, 1] * 5}
    columns["n"] = pa.array([7, 8] * 5).dictionary_encode()
    path = tmp_path / "d.parquet"
    parquet.write_table(pa.table(columns), path)
    rules = rules_of(table_job(path, data={"columns": {"t": "category", "n": "category"}}))
    assert rules.features == ("k=u", "k=v", "t=01:00:00.000", "t=02:00:00.000", "n=7", "n=8")
