"""Import and export compared with `transformers` itself: its folders, its logits, its losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.run.saved_model import open_run
from tests.jobs import pipetrain_here
from tests.models.gpt2_goldens import logits_here, logits_of, losses_here, losses_of, random_gpt2, rows_to_try
from tests.models.test_gpt2_export import CHAR_GPT, TEXT, trained, trained_on_text

pytest.importorskip("torch", reason="torch is not installed (pip install 'pipetrain[benchmark]')")
pytest.importorskip("transformers", reason="transformers is not installed (pip install 'pipetrain[dev]')")

CONFIGS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "an own head": {"tie_word_embeddings": False},
    "another activation, width and epsilon": {"activation_function": "relu", "n_inner": 50, "layer_norm_epsilon": 1e-3},
    "exact gelu": {"activation_function": "gelu", "n_layer": 1, "n_head": 1, "n_positions": 30},
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_there_and_back(tmp_path: Path, config: dict[str, Any]) -> None:
    from transformers import GPT2LMHeadModel

    model = random_gpt2(3, **config)
    rows = rows_to_try(model.config.n_positions)
    expected = logits_of(model, rows)
    model.save_pretrained(tmp_path / "gpt2")
    done = pipetrain_here("import", "gpt2", tmp_path / "gpt2", "-o", tmp_path / "made")
    assert (done.returncode, done.stderr) == (0, "")
    assert np.abs(expected).max() > 2
    np.testing.assert_allclose(logits_here(tmp_path / "made", rows), expected, rtol=0, atol=1e-5)
    done = pipetrain_here("export", "gpt2", tmp_path / "made", "-o", tmp_path / "back")
    assert (done.returncode, done.stderr) == (0, "")
    back, told = GPT2LMHeadModel.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(told[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    np.testing.assert_array_equal(logits_of(back.eval(), rows), expected)
    if not config:
        np.testing.assert_allclose(losses_here(tmp_path / "made"), losses_of(model.train()), rtol=1e-4)


def test_both_go_on_with_the_same_tokens(tmp_path: Path) -> None:
    """Always the likeliest one, up to all positions of the model."""
    import torch

    model = random_gpt2(3)
    model.save_pretrained(tmp_path / "gpt2")
    assert pipetrain_here("import", "gpt2", tmp_path / "gpt2", "-o", tmp_path / "made").returncode == 0
    more = model.config.n_positions - 3
    expected = model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=more, do_sample=False)[0].tolist()
    done = pipetrain_here(
        "generate", tmp_path / "made", "--prompt", "5 6 7", "--tokens", str(more), "--temperature", "0"
    )
    assert [int(word) for word in done.stdout.split()] == expected


def test_transformers_takes_what_was_trained_here(tmp_path: Path) -> None:
    """The network has no biases, but dropout, a tied head and a short form, as in examples/char-gpt.yaml."""
    from transformers import AutoModelForCausalLM

    run = trained(tmp_path, CHAR_GPT)
    done = pipetrain_here("export", "gpt2", run, "-o", tmp_path / "gpt2")
    assert done.returncode == 0, done.stderr
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "gpt2").eval()
    rows = rows_to_try(24)
    np.testing.assert_allclose(logits_here(run, rows), logits_of(theirs, rows), rtol=0, atol=1e-5)
    assert (theirs.config.resid_pdrop, theirs.config.attn_pdrop, theirs.config.embd_pdrop) == (0.1, 0.0, 0.0)


def test_transformers_reads_the_tokenizer(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    run = trained_on_text(tmp_path, "characters")
    assert pipetrain_here("export", "gpt2", run, "-o", tmp_path / "gpt2").returncode == 0
    theirs, ours = AutoTokenizer.from_pretrained(tmp_path / "gpt2"), open_run(run).vocabulary
    assert ours is not None
    assert theirs.encode(TEXT) == ours.encode(TEXT, "").tolist()
    assert theirs.decode(theirs.encode(TEXT)) == TEXT


def test_the_goldens_are_what_the_script_makes() -> None:
    from tests.models.gpt2_goldens import golden, tensors_of

    model, found = random_gpt2(5), golden()
    for name, value in tensors_of(model).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(found["logits"], logits_of(model, found["rows"]), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found["losses"], losses_of(model.train()), rtol=1e-6)
