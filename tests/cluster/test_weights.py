"""`model.weights`: training starts from given weights, and a file that does not fit gives an error of one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cluster.checkpoints.given_weights import check_weights
from cluster.data.rules import SourceRules, local_files
from cluster.data.weights import WeightsFile
from cluster.service import reader
from coordinator.job.spec import JobSpec, load_job, parse_job
from stages.arrays import Array
from stages.errors import InvalidData, InvalidJob
from tests.jobs import pipetrain_here

TOKENS, POSITIONS, UNITS = 11, 4, 6


def _document(tmp_path: Path, **pipeline: Any) -> dict[str, Any]:
    np.save(tmp_path / "tokens.npy", np.random.default_rng(3).integers(0, TOKENS, 400).astype(np.uint16))
    return {
        "name": "goes-on",
        "seed": 7,
        "model": {
            "input": [POSITIONS],
            "vocabulary": TOKENS,
            "layers": [
                {"embedding": {"units": UNITS}},
                "positions",
                {"transformer": {"heads": 2}},
                {"linear": {"units": TOKENS, "bias": False, "tied_to": 0}},
            ],
            "loss": "cross_entropy",
        },
        "data": {"source": "tokens.npy", "block": POSITIONS},
        "training": {
            "steps": 3,
            "batch_size": 8,
            "micro_batches": 2,
            "optimizer": {"sgd": {"learning_rate": 0.1}},
        },
        "pipeline": {"stages": 3, **pipeline},
    }


def _train(tmp_path: Path, name: str, document: dict[str, Any]) -> dict[str, Array]:
    (tmp_path / "job.yaml").write_text(json.dumps(document))
    done = pipetrain_here("train", tmp_path / "job.yaml", "--local", "--run-dir", tmp_path / name)
    assert done.returncode == 0, done.stderr
    return dict(load_file(tmp_path / name / "model.safetensors"))


def test_training_goes_on_from_the_weights_of_a_run(tmp_path: Path) -> None:
    """With a learning rate of 0 the weights do not change, not even a stage's copy of a tied weight."""
    document = _document(tmp_path)
    before = _train(tmp_path, "first", document)
    document["model"]["weights"] = "first/model.safetensors"
    document["training"]["optimizer"]["sgd"]["learning_rate"] = 1e-30
    stays = _train(tmp_path, "second", document)
    assert stays.keys() == before.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(stays[name], value, err_msg=name)
    losses = [json.loads(line) for line in (tmp_path / "second" / "metrics.jsonl").read_text().splitlines()]
    evaluated = pipetrain_here("evaluate", tmp_path / "first", "--json")
    assert json.loads(evaluated.stdout)["loss"] == pytest.approx(losses[-1]["loss"], rel=1e-6)
    assert "weights" not in json.loads((tmp_path / "second" / "model.json").read_text())["model"]


def test_every_schedule_begins_with_the_same(tmp_path: Path) -> None:
    document = _document(tmp_path)
    _train(tmp_path, "first", document)
    document |= {"seed": 8}
    document["model"]["weights"] = str(tmp_path / "first" / "model.safetensors")
    (tmp_path / "job.yaml").write_text(json.dumps(document))
    done = pipetrain_here("verify", tmp_path / "job.yaml", "--local", "--stages", "1,3", "--steps", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert {row["equal"] for row in json.loads(done.stdout)} == {True}


def test_a_path_is_seen_from_the_job_file_and_the_file_goes_where_data_goes(tmp_path: Path) -> None:
    document = _document(tmp_path)
    document["model"]["weights"] = "w.safetensors"
    document["data"] |= {"tokens": "tokenizer.json", "source": "text.txt"}
    (tmp_path / "job.yaml").write_text(json.dumps(document))
    spec = load_job(tmp_path / "job.yaml")
    named = [str(tmp_path / name) for name in ("text.txt", "tokenizer.json", "w.safetensors")]
    assert local_files(spec) == named
    moved = spec.relocated({name: f"/there/{Path(name).name}" for name in named})
    assert (moved.data.source, moved.data.tokens, moved.model.weights) == (
        "/there/text.txt",
        "/there/tokenizer.json",
        "/there/w.safetensors",
    )
    assert parse_job(spec.document()) == spec


NAME = "2.0.0.1.0.weight"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda w: w.pop(NAME), f"has no {NAME}, with which the model would begin"),
        (lambda w: w.update({"9.weight": np.zeros(2)}), "has 9.weight, which is no parameter of the model"),
        (
            lambda w: w.update({NAME: np.zeros((6, 18), "f4")}),
            f"{NAME} has the shape [6, 18], but the model's has [18, 6]",
        ),
        (lambda w: w.update({NAME: np.zeros((18, 6), "i4")}), f"{NAME} is of I32, must be of F64, F32, F16"),
        (lambda w: [w.pop(name) for name in [*w][:5]], " and 2 more, with which"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(tmp_path: Path, change: Callable[[Any], object], line: str) -> None:
    document = _document(tmp_path)
    weights = {name: np.zeros(shape, "f4") for name, shape in _shapes(parse_job(document)).items()}
    change(weights)
    path = tmp_path / "begin.safetensors"
    save_file(weights, path)
    document["model"]["weights"] = path.name
    (tmp_path / "job.yaml").write_text(json.dumps(document))
    for command in (("train", "--local", "--run-dir", tmp_path / "run"), ("plan",), ("verify", "--local")):
        done = pipetrain_here(command[0], tmp_path / "job.yaml", *command[1:])
        assert done.returncode == 2
        (told,) = done.stderr.splitlines()
        assert told.startswith(f"error: {path}: ")
        assert line in told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("value", "dtype", "told"),
    [
        (np.nan, "f4", "[17, 3] is nan"),
        (-np.inf, "f2", "[17, 3] is -inf"),
        (1e300, "f8", "[17, 3] is 1e+300, too large for float32"),
    ],
)
def test_weights_that_are_not_finite_begin_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float, dtype: str, told: str
) -> None:
    monkeypatch.setattr("cluster.data.weights._BLOCK", 20)
    document = _document(tmp_path)
    weights = {name: np.zeros(shape, dtype) for name, shape in _shapes(parse_job(document)).items()}
    weights[NAME][17, 3] = value
    path = tmp_path / "begin.safetensors"
    save_file(weights, path)
    document["model"]["weights"] = str(path)
    (tmp_path / "job.yaml").write_text(json.dumps(document))
    line = f"error: {path}: {NAME}{told}; a job begins with finite weights\n"
    for command in (("train", "--local", "--run-dir", tmp_path / "run"), ("verify", "--local")):
        done = pipetrain_here(command[0], tmp_path / "job.yaml", *command[1:])
        assert (done.returncode, done.stderr) == (2, line)
    assert not (tmp_path / "run").exists()


def test_a_plan_reads_no_numbers_of_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service makes a plan within 30 seconds: that is too short to read a large file."""
    document = _document(tmp_path)
    save_file({n: np.zeros(s, "f4") for n, s in _shapes(parse_job(document)).items()}, tmp_path / "w.safetensors")
    document["model"]["weights"] = str(tmp_path / "w.safetensors")
    document["data"]["source"] = str(tmp_path / document["data"]["source"])
    question = {"document": document, "places": {}, "rules": SourceRules().as_dict(), "room": 4}

    def read(*_: object) -> int:
        raise AssertionError("numbers are read")

    for name in ("read", "checksum", "array"):
        monkeypatch.setattr(WeightsFile, name, read)
    assert json.loads(reader._QUESTIONS["plan"](question)["plan"])["stages"]


def _shapes(spec: JobSpec) -> dict[str, tuple[int, ...]]:
    network = spec.model_spec().network
    return {name: p.shape for op in network.ops for name, p in op.parameters if p.tied_to is None}


@pytest.mark.parametrize(
    ("content", "line"),
    [(None, "no such file"), (b"PK\x03\x04", "is no safetensors file: "), (b"", "is no safetensors file: ")],
)
def test_no_file_of_weights_is_one_line(tmp_path: Path, content: bytes | None, line: str) -> None:
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    document = _document(tmp_path)
    document["model"]["weights"] = str(path)
    with pytest.raises(InvalidData) as told:
        check_weights(parse_job(document))
    assert str(told.value).startswith(f"{path}: {line}")
    assert len(str(told.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["w.pt", 3, "http://host/w.safetensors", "a\nb.safetensors"])
def test_other_weights_are_no_entry(tmp_path: Path, name: object) -> None:
    document = _document(tmp_path)
    document["model"]["weights"] = name
    with pytest.raises(InvalidJob, match=r"model\.weights: got .*, must be a \.safetensors file"):
        parse_job(document)


def test_weights_are_read_by_the_rules_and_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"a": np.random.default_rng(0).normal(size=(37, 5)), "b": np.arange(3, dtype="f2")}
    save_file(values, tmp_path / "w.safetensors")
    monkeypatch.setattr("cluster.data.weights._BLOCK", 20)
    with WeightsFile(str(tmp_path / "w.safetensors")) as weights:
        for name, value in values.items():
            out: Array = np.full(value.shape, np.nan, dtype="f4")
            weights.read(name, out)
            np.testing.assert_array_equal(out, value.astype("f4"))
    with pytest.raises(InvalidData, match="only below /elsewhere"):
        WeightsFile(str(tmp_path / "w.safetensors"), SourceRules(roots=("/elsewhere",)))
