"""A trained network in Hugging Face's GPT-2 layout, if it is one: config.json, model.safetensors, tokenizer.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from cluster.models.gpt2_config import CONFIG, config_document
from cluster.models.gpt2_import import TENSORS
from cluster.models.gpt2_network import Gpt2, NotGpt2, as_gpt2
from cluster.models.new_folder import new_folder, require_free
from cluster.models.tokenizer_file import tokenizer_json
from cluster.run.saved_model import FinishedRun, write_tensors, write_whole
from coordinator import run_files
from stages.arrays import Array
from stages.errors import InvalidData

_END = "<|endoftext|>"
_TOKENIZER_CONFIG = "tokenizer_config.json"
_FORMAT = {"format": "pt"}
"""What readers of the layout look for in the file's metadata."""


def export_gpt2(run: FinishedRun, into: Path) -> tuple[Gpt2, int]:
    """Write the network of a run into the new folder `into`; its sizes, and how many biases it left out, which become
    zeros. Raises InvalidData if it is no GPT-2, UserMistake if `into` holds something, OSError."""
    require_free(into)
    model = run.spec.model_spec()
    try:
        sizes, pairs = as_gpt2(model.network)
    except NotGpt2 as difference:
        raise InvalidData(f"{run.spec.name}: GPT-2's layout cannot hold this network: {difference}") from None
    tensors: dict[str, Array] = {}
    for pair in pairs:
        array = np.zeros(pair.shape, dtype=model.precision) if pair.ours is None else run.parameter(pair.ours)
        tensors[pair.theirs] = np.ascontiguousarray(array.T) if pair.turned else array
    tokenizer = "" if run.vocabulary is None else tokenizer_json(run.vocabulary)
    end = None if run.vocabulary is None else run.vocabulary.number_of(_END)
    config = config_document(sizes, model.precision, end)
    with new_folder(into, (TENSORS, run_files.TOKENIZER, _TOKENIZER_CONFIG, CONFIG)):
        write_tensors(into / TENSORS, tensors, _FORMAT)
        if tokenizer:
            write_whole(into / run_files.TOKENIZER, tokenizer.encode())
            write_whole(into / _TOKENIZER_CONFIG, b'{"tokenizer_class": "PreTrainedTokenizerFast"}\n')
        write_whole(into / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
    return sizes, sum(pair.ours is None for pair in pairs)
