"""config.json of a model in Hugging Face's GPT-2 layout, and the job that it stands for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.models.gpt2_network import ACTIVATIONS, Gpt2
from coordinator.job.regular_files import read_regular
from stages.errors import InvalidData

CONFIG = "config.json"
_MOST_BYTES = 2**20
_DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_inner": None,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": True,
    "embd_pdrop": 0.1,
    "resid_pdrop": 0.1,
    "attn_pdrop": 0.1,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}
"""What the layout has for entries that are not there."""
_ONLY = {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False}
_SIZES = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
_RATES = ("embd_pdrop", "resid_pdrop", "attn_pdrop")
_LARGEST = 2**31 - 1


def read_config(folder: Path) -> tuple[Gpt2, float]:
    """The model's sizes, and the rate of dropout inside attention, which no layer here has. Raises InvalidData."""
    path = folder / CONFIG
    if not path.is_file():
        raise InvalidData(f"{folder}: has no {CONFIG}, so it is not the folder of a GPT-2")
    try:
        found = json.loads(read_regular(path, _MOST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidData(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict) or found.get("model_type") != "gpt2":
        kind = found.get("model_type") if isinstance(found, dict) else None
        raise InvalidData(f"{path}: model_type is {_shown(kind)}, must be 'gpt2'")
    config = {name: found.get(name, default) for name, default in _DEFAULTS.items()}
    _check(config, path)
    features = config["n_embd"]
    return Gpt2(
        vocabulary=config["vocab_size"],
        positions=config["n_positions"],
        features=features,
        heads=config["n_head"],
        blocks=config["n_layer"],
        ffn=config["n_inner"] or 4 * features,
        activation=ACTIVATIONS[config["activation_function"]],
        epsilon=float(config["layer_norm_epsilon"]),
        embedding_dropout=float(config["embd_pdrop"]),
        residual_dropout=float(config["resid_pdrop"]),
        tied=config["tie_word_embeddings"],
    ), float(config["attn_pdrop"])


def _check(config: Mapping[str, Any], path: Path) -> None:
    """Raises InvalidData for the first entry that is wrong, or that no layer here can follow."""
    for name, only in _ONLY.items():
        if config[name] is not only:
            right = f"{json.dumps(only)}: pipetrain's attention has no other form"
            raise InvalidData(f"{path}: {name} is {_shown(config[name])}, must be {right}")
    for name in (*_SIZES, *(["n_inner"] if config["n_inner"] is not None else [])):
        if not _is_number(config[name], int) or not 1 <= config[name] <= _LARGEST:
            raise InvalidData(f"{path}: {name} is {_shown(config[name])}, must be a whole number, at least 1")
    for name in _RATES:
        if not _is_number(config[name], (int, float)) or not 0 <= config[name] < 1:
            raise InvalidData(f"{path}: {name} is {_shown(config[name])}, must be a number from 0 to below 1")
    epsilon, activation = config["layer_norm_epsilon"], config["activation_function"]
    if not _is_number(epsilon, (int, float)) or not 0 < epsilon < 1:
        raise InvalidData(f"{path}: layer_norm_epsilon is {_shown(epsilon)}, must be a number above 0")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        names = ", ".join(ACTIVATIONS)
        raise InvalidData(f"{path}: activation_function is {_shown(activation)}, must be one of {names}")
    if not isinstance(tied := config["tie_word_embeddings"], bool):
        raise InvalidData(f"{path}: tie_word_embeddings is {_shown(tied)}, must be true or false")
    if config["n_embd"] % config["n_head"]:
        raise InvalidData(f"{path}: n_head is {config['n_head']}, must divide n_embd, which is {config['n_embd']}")


def config_document(sizes: Gpt2, precision: str, end: int | None) -> dict[str, Any]:
    """The config.json of a model. `end` is the number of the token that ends a text, if there is one."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": sizes.vocabulary,
        "n_positions": sizes.positions,
        "n_embd": sizes.features,
        "n_layer": sizes.blocks,
        "n_head": sizes.heads,
        "n_inner": sizes.ffn,
        "activation_function": sizes.activation_name,
        "layer_norm_epsilon": sizes.epsilon,
        "embd_pdrop": sizes.embedding_dropout,
        "resid_pdrop": sizes.residual_dropout,
        "attn_pdrop": 0.0,
        "tie_word_embeddings": sizes.tied,
        "dtype": precision,
        "bos_token_id": end,
        "eos_token_id": end,
    }


def model_document(sizes: Gpt2) -> dict[str, Any]:
    """The section `model` of a job: with the short form `transformer` if it says all."""
    rate, first = sizes.embedding_dropout, {"embedding": {"units": sizes.features}}
    norm: Any = "layer_norm" if sizes.epsilon == _DEFAULTS["layer_norm_epsilon"] else _norm(sizes)
    head = {"units": sizes.vocabulary, "bias": False, **({"tied_to": 0} if sizes.tied else {})}
    return {
        "input": [sizes.positions],
        "vocabulary": sizes.vocabulary,
        "layers": [
            *(first, "positions", *([{"dropout": {"rate": rate}}] if rate else [])),
            _short(sizes) if norm == "layer_norm" else {"repeat": {"times": sizes.blocks, "layers": _block(sizes)}},
            norm,
            {"linear": head},
        ],
        "loss": "cross_entropy",
    }


def _short(sizes: Gpt2) -> dict[str, Any]:
    kind, form = sizes.activation
    options: dict[str, Any] = {"heads": sizes.heads, "times": sizes.blocks}
    if sizes.ffn != 4 * sizes.features:
        options["ffn"] = sizes.ffn
    options["activation"] = "gelu_tanh" if form == "tanh" else kind
    if sizes.residual_dropout:
        options["dropout"] = sizes.residual_dropout
    return {"transformer": options}


def _block(sizes: Gpt2) -> list[Any]:
    kind, form = sizes.activation
    activation: Any = {kind: {"approximate": form}} if form else kind
    end = [{"dropout": {"rate": sizes.residual_dropout}}] if sizes.residual_dropout else []
    network = [{"linear": {"units": sizes.ffn}}, activation, {"linear": {"units": sizes.features}}]
    return [
        {"residual": [_norm(sizes), {"attention": {"heads": sizes.heads}}, *end]},
        {"residual": [_norm(sizes), *network, *end]},
    ]


def _norm(sizes: Gpt2) -> dict[str, Any]:
    return {"layer_norm": {"epsilon": sizes.epsilon}}


def _is_number(value: object, kinds: Any) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _shown(value: object) -> str:
    text = repr(value) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
