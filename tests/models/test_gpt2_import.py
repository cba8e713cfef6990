"""The import of a model in GPT-2's layout as a job with weights, compared with stored results of `transformers`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from cluster.run.saved_model import open_run
from coordinator.job.spec import load_job
from stages.layers.norms import LayerNorm
from tests.jobs import pipetrain_here
from tests.models.gpt2_goldens import (
    SIZES,
    golden,
    golden_folder,
    logits_here,
    losses_here,
    rows_to_try,
    write_folder,
)

WTE, CONFIG, TENSORS = "transformer.wte.weight", "config.json", "model.safetensors"


def _import(folder: Path, into: Path, *options: str) -> Path:
    done = pipetrain_here("import", "gpt2", folder, "-o", into, *options)
    assert (done.returncode, done.stderr) == (0, "")
    return into


def _content(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the tensors and the config of a folder."""
    return load_file(folder / "model.safetensors"), json.loads((folder / CONFIG).read_text())


def test_logits_are_those_of_transformers(tmp_path: Path) -> None:
    made, found = _import(golden_folder(tmp_path / "gpt2"), tmp_path / "made"), golden()
    assert np.abs(found["logits"]).max() > 3
    np.testing.assert_allclose(logits_here(made, found["rows"]), found["logits"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "options", [["--stages", "1"], ["--stages", "5", "--set", "training.micro_batches=3"]], ids=["1 stage", "5 stages"]
)
def test_training_goes_on_as_transformers_does(tmp_path: Path, options: list[str]) -> None:
    """This uses all of `pipetrain train`, including the copy of the tied head."""
    made = _import(golden_folder(tmp_path / "gpt2"), tmp_path / "made")
    expected = golden()["losses"]
    assert expected[-1] < 0.9 * expected[0]
    np.testing.assert_allclose(losses_here(made, *options), expected, rtol=1e-4)


def test_it_is_told_what_was_made_and_the_short_form_is_used(tmp_path: Path) -> None:
    folder = golden_folder(tmp_path / "my gpt2")
    tensors, config = _content(folder)
    write_folder(folder, tensors, {**config, "attn_pdrop": 0.1, "resid_pdrop": 0.2, "embd_pdrop": 0.3})
    done = pipetrain_here("import", "gpt2", folder, "-o", tmp_path / "made")
    job = tmp_path / "made" / "job.yaml"
    assert done.stdout.splitlines() == [
        f"{tmp_path / 'made'}: 3 blocks of 32 features with 4 heads, 24 positions, 97 tokens; 42,048 parameters",
        "attn_pdrop 0.1 is ignored: pipetrain has no dropout inside attention",
        f"train it on: pipetrain train {job} --set data.source=TOKENS.bin",
    ]
    spec = load_job(job)
    assert spec.name == "my-gpt2"
    assert spec.document()["model"]["layers"][2:4] == [
        {"dropout": {"rate": 0.3}},
        {
            "transformer": {
                "heads": 4,
                "times": 3,
                "norm": "layer_norm",
                "activation": "gelu_tanh",
                "dropout": 0.2,
                "bias": True,
                "causal": True,
                "rotary": False,
            }
        },
    ]
    assert spec.model.weights == str(tmp_path / "made" / "model.safetensors")


def test_a_folder_that_was_moved_still_trains_and_writes(tmp_path: Path) -> None:
    """The job names files relative to its own folder."""
    _import(golden_folder(tmp_path / "gpt2"), tmp_path / "made").rename(tmp_path / "moved")
    assert len(losses_here(tmp_path / "moved")) == 10
    done = pipetrain_here("generate", tmp_path / "moved", "--prompt", "5 6 7", "--tokens", "4")
    assert len(done.stdout.split()) == 7
    done = pipetrain_here("evaluate", tmp_path / "moved", "--data", tmp_path / "moved" / "tokens.npy")
    assert done.returncode == 0, done.stderr


def test_names_without_the_prefix_and_masks_are_read(tmp_path: Path) -> None:
    """GPT2Model alone saves names without the prefix, and older versions save masks, too."""
    tensors, config = _content(golden_folder(tmp_path / "gpt2"))
    plain = {name.removeprefix("transformer."): value for name, value in tensors.items()}
    plain |= {"h.0.attn.bias": np.ones((1, 1, 24, 24), "u1"), "h.2.attn.masked_bias": np.array(-1e4, "f4")}
    plain["lm_head.weight"] = plain["wte.weight"].copy()
    made = _import(write_folder(tmp_path / "plain", plain, {"model_type": "gpt2", **config}), tmp_path / "made")
    np.testing.assert_allclose(logits_here(made, golden()["rows"]), golden()["logits"], rtol=0, atol=1e-5)


def test_fewer_positions_are_the_first_ones(tmp_path: Path) -> None:
    made = _import(golden_folder(tmp_path / "gpt2"), tmp_path / "made", "--block", "10")
    found = logits_here(made, golden()["rows"][:, :10])
    np.testing.assert_allclose(found, golden()["logits"][:, :10], rtol=0, atol=1e-5)
    done = pipetrain_here("import", "gpt2", tmp_path / "gpt2", "-o", tmp_path / "b", "--block", "25")
    assert (done.returncode, done.stderr.strip()) == (
        2,
        "error: --block: got 25, must be at most 24, the positions of the model",
    )


def test_another_epsilon_needs_the_long_form_and_half_precision_is_widened(tmp_path: Path) -> None:
    tensors, config = _content(golden_folder(tmp_path / "gpt2"))
    half = {name: value.astype("f2") for name, value in tensors.items()}
    other = {**config, "layer_norm_epsilon": 1e-3, "resid_pdrop": 0.1, "activation_function": "relu"}
    made = _import(write_folder(tmp_path / "other", half, other), tmp_path / "made")
    run = open_run(made)
    norms = [op.layer for op in run.spec.model_spec().network.ops if isinstance(op.layer, LayerNorm)]
    assert [norm.epsilon for norm in norms] == [1e-3] * 7
    weight = run.parameter("2.1.0.1.0.weight")
    assert weight.dtype == np.float32
    np.testing.assert_array_equal(weight, half["transformer.h.1.attn.c_attn.weight"].T.astype("f4"))


def test_a_tokenizer_comes_along(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="pip install 'pipetrain[text]'")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate("abc")}, unk_token="a"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    folder = golden_folder(tmp_path / "gpt2")
    tokenizer.save(str(folder / "tokenizer.json"))
    made = _import(folder, tmp_path / "made")
    (tmp_path / "a.txt").write_text("a b c b a " * 60)
    done = pipetrain_here(
        "train", made / "job.yaml", "--local", "--run-dir", tmp_path / "run", "--set", "training.steps=2",
        "--set", f"data.source={tmp_path / 'a.txt'}", "--set", "data.validation=0.2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for run in (made, tmp_path / "run"):
        assert open_run(run).vocabulary is not None
        done = pipetrain_here("generate", run, "--prompt", "b c", "--tokens", "3")
        assert (done.returncode, done.stderr) == (0, "")
    evaluated = pipetrain_here("evaluate", tmp_path / "run", "--data", tmp_path / "a.txt")
    assert evaluated.returncode == 0, evaluated.stderr


def test_a_tokenizer_of_more_tokens_is_refused(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="pip install 'pipetrain[text]'")
    folder = golden_folder(tmp_path / "gpt2")
    words = {f"w{n}": n for n in range(98)}
    tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0")).save(str(folder / "tokenizer.json"))
    done = pipetrain_here("import", "gpt2", folder, "-o", tmp_path / "made")
    assert done.returncode == 2
    assert "tokenizer.json: has 98 tokens, but the model knows 97 by its config.json" in done.stderr


def _tensors(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        tensors, config = _content(folder)
        change(tensors)
        write_folder(folder, tensors, config)

    return apply


def _config(**entries: Any) -> Callable[[Path], object]:
    return lambda folder: (folder / CONFIG).write_text(json.dumps({**_content(folder)[1], **entries}))


def _renamed(to: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "model.safetensors").rename(folder / to)


def _head_in(kind: str) -> Callable[[Path], object]:
    """Add a head of numbers that NumPy does not have: only the name of its type in the header tells."""

    def apply(folder: Path) -> None:
        tensors, config = _content(folder)
        rows, columns = tensors[WTE].shape
        stand_in = np.zeros((rows, columns), np.int16 if kind == "BF16" else np.int8)
        write_folder(folder, {**tensors, "lm_head.weight": stand_in}, config)
        path = folder / TENSORS
        content, written = path.read_bytes(), b'"I16"' if kind == "BF16" else b'"I8"'
        n = int.from_bytes(content[:8], "little")
        header = content[8 : 8 + n].rstrip().replace(written, f'"{kind}"'.encode())
        path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + n :])

    return apply


C_ATTN = "transformer.h.1.attn.c_attn.weight"


@pytest.mark.parametrize(
    ("change", "place", "line"),
    [
        (lambda f: (f / CONFIG).unlink(), "", "has no config.json, so it is not the folder of a GPT-2"),
        (lambda f: (f / CONFIG).write_text("{"), CONFIG, "cannot be read: Expecting property name"),
        (lambda f: (f / CONFIG).write_text("[]"), CONFIG, "model_type is null, must be 'gpt2'"),
        (_config(model_type="llama"), CONFIG, "model_type is 'llama', must be 'gpt2'"),
        (_config(activation_function="quick_gelu"), CONFIG, "activation_function is 'quick_gelu', must be one of"),
        (_config(activation_function=["gelu"]), CONFIG, 'activation_function is ["gelu"], must be one of'),
        (_config(n_head=5), CONFIG, "n_head is 5, must divide n_embd, which is 32"),
        (_config(n_layer="3"), CONFIG, "n_layer is '3', must be a whole number, at least 1"),
        (_config(n_layer=0), CONFIG, "n_layer is 0, must be a whole number, at least 1"),
        (_config(resid_pdrop=1.5), CONFIG, "resid_pdrop is 1.5, must be a number from 0 to below 1"),
        (_config(layer_norm_epsilon=None), CONFIG, "layer_norm_epsilon is null, must be a number above 0"),
        (_config(scale_attn_by_inverse_layer_idx=True), CONFIG, "layer_idx is true, must be false: pipetrain's"),
        (_config(add_cross_attention=True), CONFIG, "cross_attention is true, must be false: pipetrain's attention"),
        (_config(n_layer=4), TENSORS, "lacks h.3.ln_1.weight, h.3.ln_1.bias, h.3.attn.c_attn.weight and 9"),
        (_config(n_layer=2), TENSORS, "has transformer.h.2.attn.c_attn.bias"),
        (_config(n_inner=100), TENSORS, "transformer.h.0.mlp.c_fc.weight has the shape [32, 128], must be"),
        (_config(tie_word_embeddings=False), TENSORS, "lacks lm_head.weight, which its config.json implies"),
        (_tensors(lambda t: t.pop(C_ATTN)), TENSORS, "lacks h.1.attn.c_attn.weight, which its"),
        (_tensors(lambda t: t.update({C_ATTN: np.zeros((96, 32))})), TENSORS, "[96, 32], must be [32, 96]"),
        (_tensors(lambda t: t.update({C_ATTN: np.zeros((32, 96), "i8")})), TENSORS, "is of I64, must be of"),
        (_tensors(lambda t: t.update({"wte.weight": t[WTE]})), TENSORS, "has both transformer.wte.weight and"),
        (_tensors(lambda t: t.update({"score.weight": t[WTE]})), TENSORS, "has score.weight, which its"),
        (_tensors(lambda t: t.update({"lm_head.weight": -t[WTE]})), TENSORS, "lm_head.weight is not wte"),
        (_head_in("BF16"), TENSORS, "lm_head.weight is of BF16, must be of F64, F32, F16"),
        (_head_in("F8_E4M3"), TENSORS, "lm_head.weight is of F8_E4M3, must be of F64, F32, F16"),
        (_renamed("model.safetensors.index.json"), "", "its weights are in several files (model.saf"),
        (_renamed("pytorch_model.bin"), "", "pytorch_model.bin is a pickle, which is not read"),
        (_renamed("weights"), "", "has config.json, but no model.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"{}"), TENSORS, "is no safetensors file: "),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "", "gpt2/tokenizer.json: is no tokenizer.json: "),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line(
    tmp_path: Path, change: Callable[[Path], object], place: str, line: str
) -> None:
    folder = golden_folder(tmp_path / "gpt2")
    change(folder)
    done = pipetrain_here("import", "gpt2", folder, "-o", tmp_path / "made")
    assert (done.returncode, done.stdout) == (2, "")
    (told,) = done.stderr.splitlines()
    assert str(folder / place if place else folder) in told
    assert line in told
    assert not (tmp_path / "made").exists()


def test_a_tokenizer_without_its_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = golden_folder(tmp_path / "gpt2")
    (folder / "tokenizer.json").write_text('{"not": "seen before"}')
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    done = pipetrain_here("import", "gpt2", folder, "-o", tmp_path / "made")
    told = "error: a tokenizer.json needs a package: pip install 'pipetrain[text]'\n"
    assert (done.returncode, done.stderr) == (2, told)


def test_other_folders_are_one_line(tmp_path: Path) -> None:
    folder = golden_folder(tmp_path / "gpt2")
    done = pipetrain_here("import", "gpt2", tmp_path / "nowhere", "-o", tmp_path / "made")
    assert done.stderr.splitlines() == [f"error: {tmp_path / 'nowhere'}: is no folder, must be that of a GPT-2"]
    done = pipetrain_here("import", "gpt2", folder, "-o", folder)
    assert done.stderr.splitlines() == [
        f"error: {folder}: is there already, and not empty; choose another folder with -o"
    ]
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG, "model.safetensors"]


@pytest.mark.parametrize(
    ("x", "line"),
    [
        (np.full((1, 24), 97), "token 97 in x[0, 0] is not in the vocabulary of 97 tokens"),
        (np.where(np.arange(48).reshape(2, 24) == 30, 1.5, 0), "token 1.5 in x[1, 6] is not"),
        (np.full((1, 24), np.nan), "token nan in x[0, 0] is not"),
        (rows_to_try(SIZES["n_positions"])[:, :23], "has 23 numbers a row in x, but model.input is [24] = 24"),
    ],
)
def test_tokens_that_cannot_be_are_told_with_their_place(tmp_path: Path, x: Any, line: str) -> None:
    made = _import(golden_folder(tmp_path / "gpt2"), tmp_path / "made")
    np.savez(tmp_path / "x.npz", x=x)
    done = pipetrain_here("predict", made, "--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz")
    assert done.returncode == 2
    assert line in done.stderr
