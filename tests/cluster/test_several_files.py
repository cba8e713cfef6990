"""Tables in several files, folders with partitions, folders of images by class; formats that store types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import feather, parquet

from cluster.cli.uploads import warn_of_missing
from cluster.client.upload import local_files
from cluster.data.content import Arrays, Table
from cluster.data.files import read_source
from cluster.data.rules import SourceRules
from cluster.data.sources import load_arrays, load_data
from coordinator.job.spec import JobSpec, load_job, parse_job
from coordinator.job.yaml_text import write_yaml
from stages.errors import InvalidData


def read(source: object) -> dict[str, list[Any]]:
    table = read_source(str(source))
    assert isinstance(table, Table)
    return {name: column.to_pylist() for name, column in table.columns.items()}


def problems(source: object, rules: SourceRules | None = None) -> list[str]:
    with pytest.raises(InvalidData) as caught:
        read_source(str(source), rules)
    return list(caught.value.problems)


# formats with types --------------------------------------------------------------------------------------------------


TYPED = pa.table({"a": [1, 2, None], "name": ["x", "y", "z"], "y": [0.5, 1.5, 2.5], "b": [True, False, None]})


def test_the_same_table_in_all_formats(tmp_path: Path) -> None:
    parquet.write_table(TYPED, tmp_path / "t.parquet")
    feather.write_feather(TYPED, tmp_path / "t.feather")
    with pa.ipc.new_file(tmp_path / "t.arrow", TYPED.schema) as file:
        file.write_table(TYPED)
    with pa.ipc.new_stream(tmp_path / "s.arrow", TYPED.schema) as stream:
        stream.write_table(TYPED)
    (tmp_path / "t.jsonl").write_text("".join(f"{json.dumps(row)}\n\n" for row in TYPED.to_pylist()))
    for name in ("t.parquet", "t.feather", "t.arrow", "s.arrow", "t.jsonl"):
        assert read(tmp_path / name) == TYPED.to_pydict(), name


def test_the_index_of_pandas_is_known(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1, 2, 3], "y": [4, 5, 6]}, index=[7, 8, 9])
    frame.to_parquet(tmp_path / "t.parquet")
    frame.rename_axis("key").to_parquet(tmp_path / "named.parquet")
    frame[frame.a > 1].to_feather(tmp_path / "t.feather")
    frame.to_csv(tmp_path / "t.csv")
    for name, index in (("t.parquet", "__index_level_0__"), ("named.parquet", "key"), ("t.csv", "Unnamed: 0")):
        table = read_source(str(tmp_path / name))
        assert isinstance(table, Table)
        assert table.index == (index,)


def test_json_lines_have_gaps_and_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": 1, "b": "x"}\n\n{"b": "y", "c": 2.5}\n')
    table = read_source(str(path))
    assert isinstance(table, Table)
    assert read(path) == {"a": [1, None], "b": ["x", "y"], "c": [None, 2.5]}
    assert [table.where(row) for row in (0, 1)] == ["line 1", "line 3"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", ["is empty; it must hold an object on each line"]),
        ('{"a": 1}\n[1]\n', ['line 2 must be an object, such as {"age": 3, "sex": "f"}']),
        ('{"a": 1}\n{"a": "x"}\n{"a": true}\n', ["line 2 has a text in 'a', 'x', but line 1 has a number",
         "line 3 has a truth value in 'a', True, but line 1 has a number"]),
        ('{"a": [1]}\n{"a": {"b": 1}}\n', [
         "line 1 has a list in 'a'; write its values as entries of their own, or leave it out",
         "line 2 has an object in 'a'; write its values as entries of their own, or leave it out"]),
        ('{"a": 1, "a": 2}\n', ["line 1 has two entries 'a'"]),
        ('{"a": 1}\n{"a": \n', ["line 2 is not JSON: Expecting value: line 2 column 1 (char 7)"]),
        ('{"a": "é"}\n'.encode("latin-1"), ["line 1 is not in UTF-8, in which JSON is written"]),
    ],
    ids=range(7),
)  # fmt: skip
def test_json_lines_that_are_no_table(content: str | bytes, expected: list[str], tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert problems(path) == [f"{path}: {line}" for line in expected]


# several files -------------------------------------------------------------------------------------------------------


def test_files_that_fit_a_pattern_are_one_table(tmp_path: Path) -> None:
    (tmp_path / "p2.csv").write_text("y,a\n3,4\n")
    (tmp_path / "p1.csv").write_text("a,y\n1,2\n\n7,x\n")
    (tmp_path / "p3.csv").write_text("a;y\n1,5;NA\n")
    (tmp_path / "q.csv").write_text("other\n1\n")
    table = read_source(f"{tmp_path}/p*.csv")
    assert isinstance(table, Table)
    assert read(f"{tmp_path}/p*.csv") == {"a": [1, 7, 4, 1.5], "y": ["2", "x", "3", "NA"]}
    assert table.notes == (
        f"3 files, from {tmp_path}/p1.csv to {tmp_path}/p3.csv",
        f"{tmp_path}/p3.csv: read as: delimiter ;, decimal comma",
    )
    assert [table.where(row) for row in range(4)] == [
        f"line 2 of {tmp_path}/p1.csv", f"line 4 of {tmp_path}/p1.csv", f"line 2 of {tmp_path}/p2.csv",
        f"line 2 of {tmp_path}/p3.csv",
    ]  # fmt: skip


def test_files_with_other_columns_are_listed(tmp_path: Path) -> None:
    for name, text in (("1", "a,b\n1,2\n"), ("2", "a,c\n1,2\n"), ("3", "a\n1\n"), ("4", "b,a\n1,2\n")):
        (tmp_path / f"{name}.csv").write_text(text)
    assert problems(f"{tmp_path}/*.csv") == [
        f"{tmp_path}/2.csv: has no column b and has the column c, which {tmp_path}/1.csv does not have",
        f"{tmp_path}/3.csv: has no column b",
    ]


def test_a_name_with_the_signs_of_a_pattern_is_a_file_if_it_is_one(tmp_path: Path) -> None:
    (tmp_path / "rows[1].csv").write_text("a,y\n1,2\n")
    assert read(tmp_path / "rows[1].csv") == {"a": [1], "y": [2]}


def test_partitions_are_columns(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0], "y": [0, 1, 0], "year": [2023, 2024, 2024], "kind": ["x", "x", "y z"]})
    frame.to_parquet(tmp_path / "t", partition_cols=["year", "kind"])
    (tmp_path / "t" / "_SUCCESS").touch()
    found = read(f"{tmp_path}/t/")
    assert found == {"a": [1, 2, 3], "y": [0, 1, 0], "year": [2023, 2024, 2024], "kind": ["x", "x", "y z"]}


def test_columns_of_other_types_in_other_files(tmp_path: Path) -> None:
    for k, values in enumerate([[1, 2], [1.5, None], [None, None]]):
        parquet.write_table(pa.table({"a": pa.array(values)}), tmp_path / f"{k}.parquet")
    assert read(f"{tmp_path}/*.parquet") == {"a": [1, 2, 1.5, None, None, None]}
    parquet.write_table(pa.table({"a": ["x"]}), tmp_path / "3.parquet")
    (line,) = problems(f"{tmp_path}/*.parquet")
    assert line.startswith(
        f"{tmp_path}/*.parquet: column 'a' is of other types: int64 in {tmp_path}/0.parquet, double in "
    )


def test_what_is_no_table_is_told(tmp_path: Path) -> None:
    assert problems(f"{tmp_path}/no/") == [f"{tmp_path}/no/: no such folder"]
    assert problems(f"{tmp_path}/*.csv") == [f"{tmp_path}/*.csv: no file fits"]
    (tmp_path / "a.csv").write_text("a\n1\n")
    (tmp_path / "b.txt").write_text("a\n1\n")
    assert problems(f"{tmp_path}/") == [
        f"{tmp_path}/: has files of these kinds: .csv, .txt; must be tables of one kind, or images"
    ]
    assert problems(f"{tmp_path}/a.csv/") == [f"{tmp_path}/a.csv/: is a file, so its name must not end in /"]


def test_folders_and_patterns_keep_to_the_rules(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "a.csv").write_text("a,y\n1,2\n")
    (tmp_path / "in" / "link.csv").symlink_to(tmp_path / "secret" / "a.csv")
    rules = SourceRules(roots=(f"{tmp_path}/in",))
    for source in (f"{tmp_path}/secret/", f"{tmp_path}/secret/*.csv", f"{tmp_path}/*/a.csv", f"{tmp_path}/in/*.csv"):
        (line,) = problems(source, rules)
        assert line.endswith(f"local files are read only below {tmp_path}/in by this service"), line
    (line,) = problems(f"{tmp_path}/in/*.parquet", rules)
    assert line == (
        f"{tmp_path}/in/*.parquet: no file fits; folders and patterns are not uploaded, so they must be on the machine "
        "that reads them"
    )


def test_submit_says_that_several_files_are_not_uploaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("a,y\n1,2\n")
    document = image_job(tmp_path, LAYERS, validation=f"{tmp_path}/*.csv").document()
    warn_of_missing(parse_job(document))
    right = "the cluster's hosts must have it at this path; or join them into one file, such as a .parquet"
    assert capsys.readouterr().err == (
        f"{tmp_path}/ stands for several files, which are not uploaded; {right}\n"
        f"{tmp_path}/*.csv stands for several files, which are not uploaded; {right}\n"
    )
    assert local_files(parse_job(document)) == []
    assert local_files(parse_job({**document, "data": {"source": f"{tmp_path}/a.csv"}})) == [f"{tmp_path}/a.csv"]


def test_places_of_several_files_are_relative_to_the_job_file(tmp_path: Path) -> None:
    document = image_job(Path("flowers"), LAYERS, validation="parts/*.csv.gz").document()
    (tmp_path / "job.yaml").write_text(write_yaml(document))
    data = load_job(tmp_path / "job.yaml").data
    assert (data.source, data.validation) == (f"{tmp_path}/flowers/", f"{tmp_path}/parts/*.csv.gz")


# images --------------------------------------------------------------------------------------------------------------


def image(path: Path, pixels: Any, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    found = Image.fromarray(np.asarray(pixels, dtype=np.uint8))
    (found if mode is None else found.convert(mode)).save(path)
    return path


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for k in range(12):
        image(tmp_path / "flowers" / ("tulip" if k % 3 else "rose") / f"{k}.png", random.integers(0, 256, (2, 3)))
    return tmp_path / "flowers"


def image_job(folder: Path, layers: list[Any], **data: Any) -> JobSpec:
    return parse_job(
        {
            "model": {"layers": layers, "loss": "cross_entropy"},
            "data": {"source": f"{folder}/", **data},
            "training": {"epochs": 1, "batch_size": 2, "optimizer": {"sgd": {"learning_rate": 0.1}}},
        }
    )


LAYERS: list[Any] = ["flatten", {"linear": {"units": "classes"}}]


def test_folders_of_images_are_classes(flowers: Path) -> None:
    data = load_data(image_job(flowers, LAYERS, validation=0.25))
    assert (data.spec.model.input, data.spec.model_spec().network.output.features) == ((1, 2, 3), 2)
    assert data.preprocessing is not None
    assert data.preprocessing.target.classes == ("rose", "tulip")
    assert np.bincount(data.validation.y).tolist() == [1, 2], "as many of each class as their share"
    content = read_source(f"{flowers}/")
    assert isinstance(content, Arrays)
    first = np.asarray(Image.open(flowers / "rose" / "0.png"))
    assert np.array_equal(np.asarray(content.x)[0], (first / 255).astype(np.float32).ravel())
    assert data.said == (
        "inputs: 6 numbers a row (x) · target: the class of an image (classes: rose, tulip) · 9 rows train, "
        "3 validation",
        "12 images of 1 channel of 2 × 3 pixels; pixels from 0 to 255 are divided by 255",
    )
    flat = load_data(image_job(flowers, LAYERS[1:]))
    assert flat.spec.model.input == (6,)


def test_another_folder_has_the_same_labels_for_the_same_names(flowers: Path, tmp_path: Path) -> None:
    data = load_data(image_job(flowers, LAYERS))
    image(tmp_path / "more" / "tulip" / "1.png", [[1, 2, 3], [4, 5, 6]])
    more = load_arrays(data.spec, f"{tmp_path}/more/", data.preprocessing)
    assert more.y.tolist() == [1]
    image(tmp_path / "more" / "lily" / "1.png", [[1, 2, 3], [4, 5, 6]])
    with pytest.raises(InvalidData, match=r"more/: the model knows no class lily, only rose, tulip$"):
        load_data(image_job(flowers, LAYERS, validation=f"{tmp_path}/more/"))


def test_channels_come_first(tmp_path: Path) -> None:
    pixels = np.arange(2 * 3 * 3).reshape(2, 3, 3)
    image(tmp_path / "a" / "1.png", pixels)
    image(tmp_path / "b" / "1.png", pixels)
    content = read_source(f"{tmp_path}/")
    assert isinstance(content, Arrays)
    assert content.shape == (3, 2, 3)
    assert (np.asarray(content.x)[0] * 255).round().astype(int).tolist() == np.moveaxis(pixels, 2, 0).ravel().tolist()


def test_images_that_do_not_fit_are_listed(flowers: Path) -> None:
    image(flowers / "rose" / "wide.png", np.zeros((2, 4)))
    image(flowers / "rose" / "colour.png", np.zeros((2, 3, 3)))
    image(flowers / "tulip" / "deep.png", np.zeros((2, 3)), "I;16")
    (flowers / "tulip" / "broken.png").write_bytes(b"\x89PNG not really")
    assert problems(f"{flowers}/") == [
        f"{flowers}/tulip/broken.png: cannot be read as an image: it is of no known format, or damaged",
        f"{flowers}/tulip/deep.png: cannot be read as an image: its pixels are stored as I;16; save it with 8 bits, in "
        "grey, RGB or RGBA",
        f"{flowers}/rose/colour.png: is 3 channels of 2 × 3 pixels, but most images are 1 channel of 2 × 3 pixels; "
        "make it so",
        f"{flowers}/rose/wide.png: is 1 channel of 2 × 4 pixels, but most images are 1 channel of 2 × 3 pixels; "
        "make it so",
    ]
    image(flowers / "loose.png", np.zeros((2, 3)))
    assert problems(f"{flowers}/") == [
        f"{flowers}/loose.png: must be in a folder of its class, such as {flowers}/cats/loose.png"
    ]


def test_images_without_classes_are_inputs_only(tmp_path: Path) -> None:
    image(tmp_path / "new" / "1.png", np.zeros((2, 3)))
    content = read_source(f"{tmp_path}/new/")
    assert isinstance(content, Arrays)
    assert content.y is None
    layers = ["flatten", {"linear": {"units": 2}}]
    with pytest.raises(
        InvalidData, match=r"new/: its images must be in folders of their classes, such as .*new/cats/1"
    ):
        load_data(parse_job({**image_job(tmp_path / "new", layers).document(), "model": {
            "input": [1, 2, 3], "layers": layers, "loss": "cross_entropy"}}))  # fmt: skip
