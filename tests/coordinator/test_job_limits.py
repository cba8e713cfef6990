"""Limits of a job, which are checked before it is parsed; and texts that cannot be stored."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from cluster.client import Client
from cluster.dashboard.submission import NotSubmitted, read_job_text
from cluster.service.api import _read_spec
from coordinator.job.limits import MAX_DOCUMENT_BYTES, MAX_LAYERS, MAX_TEXT
from coordinator.job.spec import load_job, parse_job
from coordinator.job.yaml_text import read_document, read_yaml
from stages.errors import InvalidJob, UserMistake
from tests.coordinator.job_documents import LARGEST, SMALLEST, changed

HALF = "\ud800"
STORED = "must be text that UTF-8 can hold, without half of a surrogate pair"


def problems(document: object) -> tuple[str, ...]:
    with pytest.raises(InvalidJob) as caught:
        parse_job(document)
    return caught.value.problems


# texts ---------------------------------------------------------------------------------------------------------------

TEXTS = ["name", "data.source", "data.target.0", "data.validation", "pipeline.schedule", "tracking.tensorboard",
         "tracking.mlflow", "model.layers.1", "resources.memory_per_worker", "precision"]  # fmt: skip


@pytest.mark.parametrize("path", TEXTS)
@pytest.mark.parametrize("text", [f"{HALF}.csv", f"/rows/{HALF[0]}x.csv", "caf\udce9.csv"])
def test_a_text_that_cannot_be_stored_is_refused_where_it_stands(path: str, text: str) -> None:
    place = re.sub(r"\.(\d+)", r"[\1]", path)
    assert [line for line in problems(changed(path, text, LARGEST)) if line.startswith(f"{place}: ")] == [
        f"{place}: got {text!r}, {STORED}"
    ]


@pytest.mark.parametrize("section", ["", "model", "training.optimizer.sgd", "model.layers.1"])
def test_so_is_a_key(section: str) -> None:
    found = problems(changed(f"{section}.{HALF}".removeprefix("."), 1, LARGEST))
    place = re.sub(r"\.(\d+)", r"[\1]", section) or "the job file"
    assert f"{place}: got the key '\\ud800', {STORED}" in found


def test_every_way_in_gives_the_same_answer(tmp_path: Path) -> None:
    """gRPC's document, the body of a POST, a job file with `--set`, and the Python client."""
    document = changed("data.source", f"/d/{HALF}.csv")
    (expected,) = problems(document)
    with pytest.raises(InvalidJob) as by_grpc:
        _read_spec(json.dumps(document), None)
    with pytest.raises(NotSubmitted) as by_http:
        read_job_text(json.dumps(document)).spec({})
    (tmp_path / "job.yaml").write_text(json.dumps(SMALLEST))
    with pytest.raises(InvalidJob) as by_command:
        load_job(tmp_path / "job.yaml", data__source=f"/d/{HALF}.csv")
    assert by_grpc.value.problems == (expected,)
    assert [problem.text for problem in by_http.value.placed] == [expected]
    assert by_command.value.problems == (expected,)
    with pytest.raises(InvalidJob, match=r"--set .*half of a surrogate pair"):
        load_job(tmp_path / "job.yaml", [f"data.source=/d/{HALF}.csv"])


@pytest.mark.parametrize("given", [{"submission_id": HALF}, {"name": HALF}])
def test_a_client_tells_it_of_what_is_no_part_of_the_document(given: dict[str, str]) -> None:
    client = Client("127.0.0.1:1", token="x")
    with pytest.raises(UserMistake, match=r"UTF-8|a name of at most 100 letters"):
        client.submit(SMALLEST, upload=False, **given)  # type: ignore[arg-type]
    with pytest.raises(UserMistake, match="UTF-8"):
        client.get(HALF)


def test_characters_beyond_the_first_plane_are_text() -> None:
    text = json.dumps(changed("data.source", "/d/😀.csv"))
    assert "\\ud83d" in text
    assert read_job_text(text).spec({}).data.source == "/d/😀.csv"
    assert parse_job(changed("data.source", "/d/😀.csv")).data.source == "/d/😀.csv"


# numbers -------------------------------------------------------------------------------------------------------------


def layers(number: int) -> dict[str, Any]:
    return changed("model.layers", [{"linear": {"units": 4, "bias": True}}] * number)


def test_the_largest_job_is_taken_and_one_layer_more_is_told_the_limit() -> None:
    assert len(parse_job(layers(MAX_LAYERS)).model.layers) == MAX_LAYERS == 10_000
    (line,) = problems(layers(MAX_LAYERS + 1))
    assert line.startswith("model.layers: got ")
    assert line.endswith("; it has 10,001, at most 10,000 are allowed")


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("model.layers", ["relu"] * 1_000_000, "the job has more than 50,000 entries; an alias counts as all "
         "that it stands for"),
        ("model.input", [1] * 33, "it has 33, at most 32 are allowed"),
        ("model.input", [2**20, 2**20], "must be at most 2,147,483,647 numbers together"),
        ("training", {**SMALLEST["training"], "batch_size": 10**9, "micro_batches": 200_001}, "training.micro_batches: "
         "got 200,001 in 1 stages, which makes 200,001 forward passes a step, must be at most 200,000"),
        ("data.source", "/" + "a" * MAX_TEXT + ".csv", "must have at most 4,096 characters, it has 4,101"),
    ],
    ids=["entries", "dimensions", "inputs", "actions", "text"],
)  # fmt: skip
def test_what_is_too_large_is_told_its_limit(path: str, value: object, expected: str) -> None:
    assert any(expected in line for line in problems(changed(path, value)))


def test_a_document_that_holds_itself_or_is_too_deep_is_told_its_limit() -> None:
    itself: list[Any] = []
    itself.append(itself)
    deep: Any = 1
    for _ in range(2000):
        deep = [deep]
    for value in (itself, deep):
        assert problems(changed("model.layers", value)) == (
            "the job has lists or mappings more than 32 deep within each other",
        )


def test_many_mistakes_are_told_as_a_number() -> None:
    found = problems(changed("model.layers", [{"linear": {"unit": 1}}] * MAX_LAYERS))
    assert len(found) == 101
    assert found[-1] == "and 19,901 more problems"


@pytest.mark.parametrize("size", [MAX_DOCUMENT_BYTES + 1, 9_000_000])
def test_the_bytes_of_a_job_are_limited_on_every_way_in(size: int, tmp_path: Path) -> None:
    text = json.dumps(SMALLEST) + "\n#"
    text += "é" * ((size - len(text)) // 2 + 1)
    with pytest.raises(NotSubmitted, match="bytes, must have at most 1,048,576"):
        read_job_text(text)
    assert "must have at most 1,048,576" in read_yaml(text)[1][0]
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(InvalidJob, match="has more than 1,048,576 bytes"):
        load_job(tmp_path / "job.yaml")


# YAML ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a\n" * 200_000, "entries"),
        ("[" * 500_000, "nesting depth"),
        ("- " * 300_000, "32 deep"),
        ("{a: " * 200_000, "32 deep"),
        ("a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 60)),
         "<< brings"),
        ("a: &a {<<: *a}", "nested too deeply"),
        ("a: {<<: 1}", "<< takes mappings"),
    ],
    ids=["long", "brackets", "dashes", "braces", "merges", "merge of itself", "merge of a number"],
)  # fmt: skip
def test_a_text_cannot_make_the_reader_work_for_long(text: str, expected: str) -> None:
    document, found = read_yaml(text)
    assert document is None
    (line,) = found
    assert expected in line


def test_merges_keep_the_meaning_of_yaml() -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*a, *b], z: 3, w: 3}\nd: {<<: *b, y: 4}"
    found, wrong = read_yaml(text)
    assert wrong == []
    assert isinstance(found, dict)
    assert found["c"] == {"x": 1, "y": 1, "z": 3, "w": 3}
    assert found["d"] == {"y": 4, "z": 2}


def test_json_is_read_as_such_and_its_doubled_keys_are_found() -> None:
    assert read_document('{"a": "\\ud83d\\ude00", "b": [1, 1e3, null, true]}') == (
        {"a": "😀", "b": [1, 1000.0, None, True]},
        [],
    )
    assert read_document('{"a": 1,\n"a": 2}')[1] == ["a: given twice, in lines 1 and 2; keep one"]
    assert read_document("{a: 1}") == ({"a": 1}, [])
    assert read_document('{"a": NaN}') == ({"a": "NaN"}, [])
