"""What `pipetrain generate` draws, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file, save_file

from cluster.cli import cli
from cluster.cli.generate import TokenDraw
from cluster.run.saved_model import open_run
from stages.errors import InvalidData
from tests.jobs import pipetrain_here

TEXT = "the cat sat on the mat.\nthe dog sat on the log.\n" * 20


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def _trained(folder: Path, **data: Any) -> Path:
    """Return the run of a network with outputs for 300 tokens, of which the last ones are by far the likeliest."""
    (folder / "a.txt").write_text(TEXT)
    job = {
        "model": {
            "input": [8],
            "vocabulary": 300,
            "loss": "cross_entropy",
            "layers": [{"embedding": {"units": 4}}, {"linear": {"units": 300}}],
        },
        "data": {"source": "a.txt", "block": 8, "validation": 0.1, **data},
        "training": {"steps": 1, "batch_size": 4, "optimizer": {"sgd": {"learning_rate": 0.1}}},
    }
    (folder / "job.yaml").write_text(json.dumps(job))
    done = _run("train", folder / "job.yaml", "--local", "--run-dir", folder / "run")
    assert done.exit_code == 0, done.output
    _change(folder / "run", lambda name, array: array + 50 * (np.arange(len(array)) > 290) if "bias" in name else array)
    return folder / "run"


def test_a_damaged_tokenizer_or_weights_of_a_run_are_one_line(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="pip install 'pipetrain[text]'")
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"the": 0, "cat": 250, "?": 1}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(5)
    tokenizer.save(str(tmp_path / "own.json"))
    run = _trained(tmp_path, tokens="own.json")
    assert pipetrain_here("generate", run, "--prompt", "the cat", "--tokens", "3").returncode == 0
    _change(run, lambda name, array: array * np.nan)
    refused = pipetrain_here("generate", run, "--prompt", "the cat")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "the network's outputs are not finite" in refused.stderr
    (run / "tokenizer.json").write_text('{"version": "1.0"}')
    refused = pipetrain_here("generate", run, "--prompt", "the cat")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert refused.stderr.startswith("error: the run's tokenizer: is no tokenizer.json: ")


def _change(run: Path, change: Any) -> None:
    path = run / "model.safetensors"
    tensors = {name: change(name, array) for name, array in load_file(path).items()}
    save_file({name: np.ascontiguousarray(array.astype(np.float32)) for name, array in tensors.items()}, path)


@pytest.mark.parametrize("tokens", ["characters", "bytes"])
def test_only_tokens_of_the_vocabulary_are_drawn(tmp_path: Path, tokens: str) -> None:
    run = _trained(tmp_path, tokens=tokens)
    for temperature in (0, 1):
        done = _run("generate", run, "--prompt", "the", "--tokens", 20, "--temperature", temperature)
        assert (done.exit_code, done.exception) == (0, None)
        if tokens == "characters":
            assert set(done.output) <= set(TEXT)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--temperature", "nan"), "nan is not a number."),
        (("--top-p", "nan"), "nan is not a number."),
    ],
)
def test_a_number_must_be_one(tmp_path: Path, options: tuple[str, str], line: str) -> None:
    done = _run("generate", tmp_path, *options)
    assert done.exit_code == 2
    assert line in done.output


@pytest.mark.filterwarnings("error")
def test_almost_no_temperature_takes_the_likeliest() -> None:
    outputs = np.array([1.0, 3.0, -1e30, 2.0])
    assert {TokenDraw(1e-310, None, top_p, seed)(outputs) for seed in range(9) for top_p in (None, 0.5)} == {1}


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_outputs_that_are_not_finite_are_told(value: float, temperature: float) -> None:
    with pytest.raises(InvalidData, match="the network's outputs are not finite"):
        TokenDraw(temperature, None, None, 0)(np.array([0.0, value, 1.0]))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda name, array: array[1:], "0.weight has the shape [299, 4], but the model's has [300, 4]"),
        (lambda name, array: array.reshape(-1), "0.weight has the shape [1200], but the model's has [300, 4]"),
    ],
)
def test_weights_of_another_shape_are_one_line(tmp_path: Path, change: Any, line: str) -> None:
    run = _trained(tmp_path)
    _change(run, change)
    for command in (("generate", run, "--prompt", "the"), ("evaluate", run)):
        with pytest.raises(InvalidData) as told:
            CliRunner().invoke(cli, [str(word) for word in command], catch_exceptions=False, standalone_mode=False)
        assert str(told.value) == f"{run}/model.safetensors: {line}"


def test_weights_in_another_precision_are_converted(tmp_path: Path) -> None:
    """Other programs write such files; a network of mixed precisions would not run."""
    run = _trained(tmp_path)
    before = _run("generate", run, "--prompt", "the", "--tokens", 9).output
    path = run / "model.safetensors"
    save_file({name: array.astype(np.float64) for name, array in load_file(path).items()}, path)
    after = _run("generate", run, "--prompt", "the", "--tokens", 9)
    assert (after.exit_code, after.output) == (0, before)
    save_file({name: array.astype(np.int32) for name, array in load_file(path).items()}, path)
    assert "is of I32, must be of F64, F32, F16" in str(_run("generate", run, "--prompt", "the").exception)


def test_a_damaged_description_of_the_layers_is_one_line(tmp_path: Path) -> None:
    run = _trained(tmp_path)
    for content in ("[" * 100_000, "[]", '{"vocabulary": {"tokens": "bytes"}}', "\udcff"):
        (run / "model.json").write_bytes(content.encode(errors="surrogateescape"))
        with pytest.raises(InvalidData) as told:
            open_run(run)
        assert str(told.value).startswith(f"{run}/model.json: cannot be read: ")
        assert len(str(told.value).splitlines()) == 1
