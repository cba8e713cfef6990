"""The export of a trained network in GPT-2's layout, and errors for networks that do not fit that layout."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from cluster.models.gpt2_network import NotGpt2, as_gpt2
from cluster.run.saved_model import FinishedRun, open_run
from coordinator.job.layer_entries import LayerEntry
from stages.network import build_network
from stages.shapes import Shape
from tests.jobs import pipetrain_here
from tests.models.gpt2_goldens import TOKENS, golden, golden_folder, logits_here, rows_to_try

CHAR_GPT = [
    {"embedding": {"units": 32}},
    "positions",
    {"transformer": {"heads": 4, "times": 2, "bias": False, "dropout": 0.1}},
    {"layer_norm": {"bias": False}},
    {"linear": {"units": 97, "bias": False, "tied_to": 0}},
]


def trained(tmp_path: Path, layers: list[Any]) -> Path:
    """Train for a short time; return the run directory."""
    np.save(tmp_path / "tokens.npy", TOKENS)
    job = {
        "model": {"input": [24], "vocabulary": 97, "layers": layers, "loss": "cross_entropy", "init": {"std": 0.3}},
        "data": {"source": "tokens.npy", "block": 24, "windows": "random", "validation": 0.1},
        "training": {"steps": 3, "batch_size": 4, "optimizer": {"adamw": {"learning_rate": 0.01}}},
        "pipeline": {"stages": 2},
    }
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    done = pipetrain_here("train", tmp_path / "job.yaml", "--local", "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    return tmp_path / "run"


def test_what_was_imported_is_exported_bit_by_bit(tmp_path: Path) -> None:
    folder = golden_folder(tmp_path / "gpt2")
    assert pipetrain_here("import", "gpt2", folder, "-o", tmp_path / "made").returncode == 0
    done = pipetrain_here("export", "gpt2", tmp_path / "made", "-o", tmp_path / "back")
    assert done.stdout == f"{tmp_path / 'back'}: 3 blocks of 32 features with 4 heads, 24 positions, 97 tokens\n"
    ours, theirs = load_file(tmp_path / "back" / "model.safetensors"), load_file(folder / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    with safe_open(tmp_path / "back" / "model.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    before = json.loads(str(golden()["config"]))
    said_here = {"architectures": ["GPT2LMHeadModel"], "dtype": "float32", "n_inner": 128}
    assert config == {name: before[name] for name in config} | said_here


def test_a_network_without_biases_has_zeros_there_and_the_same_outputs(tmp_path: Path) -> None:
    run = trained(tmp_path, CHAR_GPT)
    done = pipetrain_here("export", "gpt2", run, "-o", tmp_path / "gpt2")
    assert done.stdout.splitlines()[1] == "13 biases that the network does not have are written as zeros"
    assert pipetrain_here("import", "gpt2", tmp_path / "gpt2", "-o", tmp_path / "back").returncode == 0
    rows = rows_to_try(24)
    np.testing.assert_array_equal(logits_here(tmp_path / "back", rows), logits_here(run, rows))


TEXT = "def f(x):\n\treturn 'é€😀'  # "


@pytest.mark.parametrize("tokens", ["characters", "bytes"])
def test_what_tokens_stand_for_goes_along(tmp_path: Path, tokens: str) -> None:
    """A tokenizer.json is exported too, so that the same text is written after export and import."""
    pytest.importorskip("tokenizers", reason="pip install 'pipetrain[text]'")
    run = trained_on_text(tmp_path, tokens)
    assert pipetrain_here("export", "gpt2", run, "-o", tmp_path / "gpt2").returncode == 0
    assert pipetrain_here("import", "gpt2", tmp_path / "gpt2", "-o", tmp_path / "back").returncode == 0
    before, after = open_run(run).vocabulary, open_run(tmp_path / "back").vocabulary
    assert before is not None
    assert after is not None
    assert after.size == before.size
    assert after.encode(TEXT, "").tolist() == before.encode(TEXT, "").tolist()
    assert after.decode(before.encode(TEXT, "")) == TEXT
    going_on = ("--prompt", "def f", "--tokens", "9")
    told = [pipetrain_here("generate", folder, *going_on).stdout for folder in (run, tmp_path / "back")]
    assert told[0] == told[1]
    if tokens == "characters":
        refused = pipetrain_here("generate", tmp_path / "back", "--prompt", "Ω")
        assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
        assert "--prompt: the tokenizer cannot encode it" in refused.stderr


def trained_on_text(tmp_path: Path, tokens: str) -> Path:
    """Train on TEXT for a short time; return the run directory."""
    (tmp_path / "a.txt").write_text(TEXT * 40)
    layers = [*CHAR_GPT[:4], {"linear": {"units": "classes", "bias": False, "tied_to": 0}}]
    job = {
        "model": {"layers": layers, "loss": "cross_entropy"},
        "data": {"source": "a.txt", "tokens": tokens, "block": 24, "windows": "random", "validation": 0.1},
        "training": {"steps": 2, "batch_size": 4, "optimizer": {"adamw": {"learning_rate": 0.01}}},
    }
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    done = pipetrain_here("train", tmp_path / "job.yaml", "--local", "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    return tmp_path / "run"


def _with(place: int, entry: object) -> list[Any]:
    return [*CHAR_GPT[:place], entry, *CHAR_GPT[place + 1 :]]


def _block(**options: Any) -> list[Any]:
    return _with(2, {"transformer": {"heads": 4, "times": 2, **options}})


ATTENTION = ["layer_norm", {"attention": {"heads": 4}}]
NETWORK = [{"linear": {"units": 64}}, "gelu", {"linear": {"units": 32}}]


@pytest.mark.parametrize(
    ("layers", "line"),
    [
        (_block(norm="rms_norm"), "layer 2.0.0.0 is rms_norm, but GPT-2 has layer_norm there"),
        (_block(activation="swiglu"), "layer 2.0.1.2 is swiglu, but GPT-2 has gelu, relu or silu there"),
        (_block(rotary=True), "layer 2.0.0.1.1 is rotary, but GPT-2's attention cannot be so"),
        (_block(causal=False), "is not causal, but GPT-2's attention cannot be so"),
        (_block(kv_heads=2), "layer 2.0.0.1.0 has 64 units, but GPT-2 has 96 there"),
        (_with(1, "relu"), "layer 1 is relu, but GPT-2 has positions there"),
        (_with(2, "relu"), "it has no block of attention"),
        (_with(4, {"linear": {"units": 97, "tied_to": 0}}), "layer 4 has a bias, but GPT-2's last layer has none"),
        (_with(4, {"linear": {"units": 90, "bias": False}}), "layer 4 has 90 units, but GPT-2 has one for each of 97"),
        ([*CHAR_GPT[:3], "relu", *CHAR_GPT[4:]], "layer 3 is relu, but GPT-2 has layer_norm there"),
        ([*CHAR_GPT[:2], *CHAR_GPT[3:]], "it has no block of attention"),
        ([*CHAR_GPT, "softplus"], "layer 5 is softplus, but GPT-2 ends before it"),
        (CHAR_GPT[:4], "it ends with layer 3, but GPT-2 has linear behind it"),
        (
            [*CHAR_GPT[:3], {"transformer": {"heads": 2}}, *CHAR_GPT[3:]],
            "its blocks differ in heads (4 and 2), but those of GPT-2 are alike",
        ),
        (
            _with(2, {"sequential": [{"residual": [*ATTENTION, {"residual": ["layer_norm", *NETWORK]}]}]}),
            "GPT-2 has add there",
        ),
    ],
)  # fmt: skip
def test_what_the_layout_cannot_hold_is_told(layers: list[Any], line: str) -> None:
    specs = [LayerEntry.model_validate(entry).spec() for entry in layers]
    network = build_network(Shape(1, positions=24, vocabulary=97), specs)
    with pytest.raises(NotGpt2) as told:
        as_gpt2(network)
    assert line in str(told.value)


def test_a_refusal_is_one_line_and_nothing_is_left(tmp_path: Path) -> None:
    run = trained(tmp_path, _block(norm="rms_norm"))
    done = pipetrain_here("export", "gpt2", run, "-o", tmp_path / "gpt2")
    assert done.returncode == 2
    (told,) = done.stderr.splitlines()
    assert told.startswith("error: job: GPT-2's layout cannot hold this network: layer 2.0.0.0 is rms_norm")
    assert not (tmp_path / "gpt2").exists()
    digits = pipetrain_here("export", "gpt2", tmp_path / "nothing", "-o", tmp_path / "gpt2")
    assert "has no job.yaml, so it is not the run directory of a finished job" in digits.stderr


def test_an_export_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, into = trained(tmp_path, CHAR_GPT), tmp_path / "new" / "gpt2"

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr("cluster.models.gpt2_export.write_whole", full)
        done = pipetrain_here("export", "gpt2", run, "-o", into)
    assert (done.returncode, done.stderr) == (1, f"failed: no space left on device: {into / 'config.json'}\n")
    assert not into.parent.exists()
    assert pipetrain_here("export", "gpt2", run, "-o", into).returncode == 0


def test_a_folder_that_is_not_free_is_refused_before_tensors_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, into = trained(tmp_path, CHAR_GPT), tmp_path / "gpt2"

    def read(*_: object) -> None:
        raise AssertionError("tensors are read")

    monkeypatch.setattr(FinishedRun, "parameter", read)
    into.write_text("")
    done = pipetrain_here("export", "gpt2", run, "-o", into)
    assert (done.returncode, done.stderr) == (2, f"error: {into}: is a file; choose another folder with -o\n")
    into.unlink()
    into.mkdir()
    (into / "a").touch()
    done = pipetrain_here("export", "gpt2", run, "-o", into)
    told = f"error: {into}: is there already, and not empty; choose another folder with -o\n"
    assert (done.returncode, done.stderr) == (2, told)


def test_an_own_head_and_float64_are_kept(tmp_path: Path) -> None:
    run = trained(tmp_path, _with(4, {"linear": {"units": 97, "bias": False}}))
    wide = {name: value.astype("f8") for name, value in load_file(run / "model.safetensors").items()}
    save_file(wide, run / "model.safetensors")
    job = (run / "job.yaml").read_text().replace("float32", "float64")
    (run / "job.yaml").write_text(job)
    assert pipetrain_here("export", "gpt2", run, "-o", tmp_path / "gpt2").returncode == 0
    config = json.loads((tmp_path / "gpt2" / "config.json").read_text())
    assert (config["tie_word_embeddings"], config["dtype"]) == (False, "float64")
    assert pipetrain_here("import", "gpt2", tmp_path / "gpt2", "-o", tmp_path / "back").returncode == 0
    rows = rows_to_try(24)
    found = logits_here(tmp_path / "back", rows)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, logits_here(run, rows))
