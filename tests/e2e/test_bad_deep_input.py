"""Mistakes in deep networks and in text: one line each, with the layer's path or the place in the data, and exit 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.layers import REFUSED
from tests.jobs import pipetrain_here

TEXT = "the cat sat on the mat. " * 60
RESOLVED = {"input": [8], "vocabulary": 12}
BLOCKS = {"transformer": {"heads": 3, "times": 2}}


def _job(tmp_path: Path, layer: Any = BLOCKS, head: Any = None, **changes: Any) -> Path:
    (tmp_path / "a.txt").write_text(TEXT)
    document: dict[str, Any] = {
        "model": {
            "layers": [{"embedding": {"units": 12}}, "positions", layer, head or {"linear": {"units": "classes"}}],
            "loss": "cross_entropy",
        },
        "data": {"source": "a.txt", "block": 8},
        "training": {"steps": 2, "batch_size": 4, "optimizer": {"sgd": {"learning_rate": 0.1}}},
    }
    for section, entries in changes.items():
        document[section] |= entries
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(document))
    return path


def _refused(tmp_path: Path, command: str, job: Path) -> str:
    where = ("--local", "--run-dir", tmp_path / "run") if command == "train" else ()
    done = pipetrain_here(command, job, *where)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert not (tmp_path / "run").exists()
    return line.removeprefix("error: ")


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "heads that do not divide the width": (
        {"layer": {"transformer": {"heads": 5, "times": 2}}},
        "model.layers[2], layer 2.0.0.1 (transformer block 0, attention): heads: got 5, must divide the 12 features of "
        "its input",
    ),
    "the same in blocks of one's own": (
        {"layer": {"repeat": {"times": 3, "layers": [{"residual": [{"attention": {"heads": 7}}]}]}}},
        "model.layers[2], layer 2.0.0.0 (repeat block 0, attention): heads: got 7, must divide the 12 features of its "
        "input",
    ),
    "the same, and the job says the vocabulary": (
        {"layer": {"attention": {"heads": 8}}, "model": RESOLVED},
        "model.layers[2].attention: heads: got 8, must divide the 12 features of its input",
    ),
    "a block longer than the positions": (
        {"model": {"input": [4], "vocabulary": 12}},
        "DIR/a.txt: data.block is 8, but the model has 4 positions (model.input); change one, or leave model.input out",
    ),
    "a residual whose shapes differ": (
        {"layer": {"residual": ["layer_norm", {"linear": {"units": 5}}]}},
        "model.layers[2].residual: its layers turn 12 × 8 positions into 5 × 8 positions; to be added, both need the "
        "same shape",
    ),
    "a tie to a layer of another shape": (
        {"head": {"linear": {"units": "classes", "tied_to": 1}}},
        "model.layers[3].linear: tied_to: got 1, whose weight has the shape [8, 12], but this layer's has [11, 12]",
    ),
    "a tie to a layer without a weight": (
        {"head": {"linear": {"units": "classes", "tied_to": 2}}},
        "model.layers[3].linear: tied_to: got 2, must be an earlier entry of model.layers that has a weight",
    ),
    "batch_norm": (
        {"layer": {"residual": ["batch_norm", {"linear": {"units": 12}}]}},
        f"model.layers[2].residual.layers[0]: got 'batch_norm', {REFUSED['batchnorm']}",
    ),
    "torch's name of it": (
        {"layer": {"BatchNorm1d": {}}},
        f"model.layers[2]: got 'BatchNorm1d', {REFUSED['batchnorm']}",
    ),
    "a loss that takes no labels": (
        {"model": {"loss": "huber"}},
        "model.loss: got 'huber', but tokens of text are labels, must be cross_entropy",
    ),
}


@pytest.mark.parametrize("command", ["plan", "train"])
@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_one_line(tmp_path: Path, name: str, command: str) -> None:
    changes, expected = CASES[name]
    assert _refused(tmp_path, command, _job(tmp_path, **changes)) == expected.replace("DIR", str(tmp_path))


def test_the_reason_against_batch_norm_says_what_to_use() -> None:
    assert "micro-batches" in REFUSED["batchnorm"]
    assert "layer_norm" in REFUSED["batchnorm"]


@pytest.mark.parametrize("command", ["plan", "train"])
def test_a_token_outside_of_the_vocabulary_is_told_with_its_place(tmp_path: Path, command: str) -> None:
    """The token is in the part for training, in the part for validation, or in a second file."""
    tokens = np.arange(600) % 12
    for place, second in ((77, None), (550, None), (30, "b.npy")):
        wrong = tokens.copy()
        wrong[place:] = 12 + place
        first = tokens if second else wrong
        np.save(tmp_path / "a.npy", first.astype(np.uint16))
        np.save(tmp_path / "b.npy", wrong.astype(np.uint16))
        data = {"source": "a.npy", **({"validation": second} if second else {})}
        told = _refused(tmp_path, command, _job(tmp_path, head={"linear": {"units": 12}}, model=RESOLVED, data=data))
        file = tmp_path / (second or "a.npy")
        assert told == f"{file}: token {12 + place} at position {place + 1} is not in the vocabulary of 12 tokens"


@pytest.mark.parametrize("command", ["plan", "train"])
def test_a_tokenizer_that_is_none_is_one_line(tmp_path: Path, command: str) -> None:
    pytest.importorskip("tokenizers", reason="pip install 'pipetrain[text]'")
    (tmp_path / "tokenizer.json").write_text('{"a": 1}')
    told = _refused(tmp_path, command, _job(tmp_path, data={"tokens": "tokenizer.json"}))
    assert told.startswith(f"{tmp_path / 'tokenizer.json'}: is no tokenizer.json: ")
    told = _refused(tmp_path, command, _job(tmp_path, data={"tokens": "none.json"}))
    assert told == f"{tmp_path / 'none.json'}: no such file"


def test_a_layer_in_a_block_whose_output_is_not_finite_is_named_as_people_count(tmp_path: Path) -> None:
    """And the step before it is recorded, although no row was due yet."""
    training = {"optimizer": {"sgd": {"learning_rate": 1e30}}, "log_every": 10}
    job = _job(tmp_path, training=training, model={"init": {"std": 0.5}})
    done = pipetrain_here("train", job, "--local", "--run-dir", tmp_path / "run")
    assert done.returncode == 1
    assert "(transformer block 0, " in done.stderr.splitlines()[-1]
    assert "became NaN or infinite in step 2" in done.stderr.splitlines()[-1]
    (row,) = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert (row["kind"], row["step"], row["samples"]) == ("step", 1, 4)
