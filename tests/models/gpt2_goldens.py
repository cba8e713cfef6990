"""A small random GPT-2 and the results that `transformers` computes with it, for machines without torch.

`python -m tests.models.gpt2_goldens` makes golden/gpt2.npz again: tensors under their names in model.safetensors,
config.json, tokens with their logits, and the losses of some steps of AdamW that start from these weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from stages.data import epoch_order
from stages.windows import Windows
from tests.jobs import pipetrain_here

GOLDEN = Path(__file__).parent / "golden" / "gpt2.npz"
SIZES = {"n_layer": 3, "n_head": 4, "n_embd": 32, "vocab_size": 97, "n_positions": 24}
TOKENS = np.random.default_rng(11).integers(0, SIZES["vocab_size"], 400).astype(np.uint16)
STEPS, BATCH, RATE, SEED = 10, 4, 3e-3, 0
"""The settings of the training. All other settings are torch's defaults for AdamW."""


def random_gpt2(seed: int, **config: Any) -> Any:
    """Return a GPT-2 in evaluation mode, with parameters so large that each of them changes the result."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    model = GPT2LMHeadModel(GPT2Config(**{**SIZES, **rates, "bos_token_id": None, "eos_token_id": None, **config}))
    stream = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            middle = 1.0 if "ln_" in name and name.endswith("weight") else 0.0
            parameter.copy_(middle + 0.25 * torch.randn(parameter.shape, generator=stream))
    return model.eval()


def tensors_of(model: Any) -> dict[str, Any]:
    """Return copies of the tensors in model.safetensors."""
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    return {name: value.numpy().copy() for name, value in model.state_dict().items() if name not in tied}


def logits_of(model: Any, rows: Any) -> Any:
    """Return logits (rows, positions, tokens), computed in float64."""
    import torch

    with torch.no_grad():
        return deepcopy(model).double()(torch.from_numpy(rows.astype(np.int64))).logits.numpy()


def losses_of(model: Any) -> list[float]:
    """Return the losses of STEPS steps on the rows of TOKENS that `pipetrain train` uses with `windows: random`."""
    import torch

    positions = model.config.n_positions
    x, y = (Windows(TOKENS[: len(TOKENS) - 40], positions, 1, shift) for shift in (0, 1))
    order, losses = epoch_order(SEED, 0, len(x)), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    for step in range(STEPS):
        rows = order[step * BATCH : (step + 1) * BATCH]
        tokens, targets = (torch.from_numpy(part[rows].astype(np.int64)) for part in (x, y))
        logits = model(tokens).logits
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def rows_to_try(positions: int) -> Any:
    """Return some rows of tokens."""
    return TOKENS[: 3 * positions].reshape(3, positions)


def golden() -> dict[str, Any]:
    """Return the content of golden/gpt2.npz."""
    with np.load(GOLDEN) as file:
        return dict(file)


def write_folder(folder: Path, tensors: Mapping[str, Any], config: Mapping[str, Any]) -> Path:
    """Write a folder as `save_pretrained` does."""
    folder.mkdir(exist_ok=True)
    save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def golden_folder(folder: Path) -> Path:
    """Write the golden model as a folder."""
    found = golden()
    tensors = {name: value for name, value in found.items() if name.startswith("transformer.")}
    return write_folder(folder, tensors, json.loads(str(found["config"])))


def logits_here(run_directory: Path, rows: Any) -> Any:
    """Return the logits of `pipetrain predict`."""
    given, made = run_directory / "x.npz", run_directory / "y.npz"
    np.savez(given, x=rows)
    done = pipetrain_here("predict", run_directory, "--input", given, "--output", made)
    assert (done.returncode, done.stderr) == (0, "")
    with np.load(made) as file:
        return file["y"]


def losses_here(run_directory: Path, *options: str) -> list[float]:
    """Return the losses of the steps of `losses_of`, from `pipetrain train` with further options."""
    np.save(run_directory / "tokens.npy", TOKENS)
    optimizer = f"{{adamw: {{learning_rate: {RATE}, decay_vectors: true}}}}"
    done = pipetrain_here(
        "train", run_directory / "job.yaml", "--local", "--run-dir", run_directory / "on", "--json", *options,
        "--set", f"data.source={run_directory / 'tokens.npy'}", "--set", f"training.steps={STEPS}",
        "--set", "training.clip_norm=null", "--set", f"training.optimizer={optimizer}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return [row["loss"] for row in rows if row["kind"] == "step"]


def _make() -> None:
    model = random_gpt2(5)
    tensors = tensors_of(model)
    rows = rows_to_try(SIZES["n_positions"])
    config = json.dumps({k: v for k, v in model.config.to_dict().items() if k != "transformers_version"})
    found = {**tensors, "rows": rows, "logits": logits_of(model, rows), "config": np.array(config)}
    found["losses"] = np.array(losses_of(model.train()))
    np.savez_compressed(GOLDEN, **found)


if __name__ == "__main__":
    _make()
