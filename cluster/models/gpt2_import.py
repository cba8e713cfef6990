"""A model in Hugging Face's GPT-2 layout becomes a job with weights, which can be evaluated, written with and trained.

Read are config.json, model.safetensors and, if it is there, tokenizer.json. Names of tensors may begin with
`transformer.` or not; `attn.bias` and `attn.masked_bias` are masks and no parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cluster.data.texts.loading import Vocabulary, read_tokenizer
from cluster.data.weights import REAL, WeightsFile
from cluster.models.gpt2_config import CONFIG, model_document, read_config
from cluster.models.gpt2_network import Gpt2, Pair, as_gpt2
from cluster.models.new_folder import new_folder, require_free
from cluster.run.saved_model import save_model, write_whole
from coordinator import run_files
from coordinator.job.spec import parse_job
from coordinator.job.yaml_text import write_yaml
from coordinator.texts import some
from stages.arrays import Array
from stages.errors import InvalidData, UserMistake

TENSORS = run_files.MODEL
_INDEX = "model.safetensors.index.json"
_PICKLE = "pytorch_model.bin"
_PREFIX = "transformer."
_MASK = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")
NUMBERS = "tokens.bin"
"""The data of a model without a tokenizer: a file that its user puts there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The result of an import: the model's sizes, how many parameters it has, and a line for each setting that is
    ignored."""

    sizes: Gpt2
    parameters: int
    ignored: tuple[str, ...]


def import_gpt2(folder: Path, into: Path, *, block: int | None = None) -> Imported:
    """Write the job and the weights of the model in `folder` into the new folder `into`.

    With `block` the model keeps its first `block` positions only. Raises InvalidData with a line that names what is
    wrong, UserMistake if `into` holds something, OSError if it cannot be written.
    """
    require_free(into)
    if not folder.is_dir():
        raise InvalidData(f"{folder}: is no folder, must be that of a GPT-2")
    sizes, attention_dropout = read_config(folder)
    if block is not None and block > sizes.positions:
        raise UserMistake(f"--block: got {block}, must be at most {sizes.positions}, the positions of the model")
    cut = replace(sizes, positions=block or sizes.positions)
    vocabulary = _vocabulary(folder, sizes)
    document = _job(folder, cut, has_tokenizer=bool(vocabulary.tokenizer))
    with WeightsFile(str(_tensors_of(folder))) as tensors:
        names = _names(tensors)
        _require_tensors(tensors, names, sizes)
        precision = document["precision"] = "float64" if tensors.dtype(names["wte.weight"]) == "F64" else "float32"
        spec = parse_job(document)
        found, pairs = as_gpt2(spec.model_spec().network)
        assert found == cut, f"the job stands for {found}, not for {cut}"
        parameters = dict(_parameters(tensors, names, pairs, precision))
    with new_folder(into, (*run_files.MODEL_FILES, run_files.TOKENIZER)):
        write_whole(into / run_files.JOB, (_HEAD + write_yaml(document)).encode())
        save_model(into, spec, parameters, vocabulary)
    dropped = f"attn_pdrop {attention_dropout:g} is ignored: pipetrain has no dropout inside attention"
    return Imported(
        sizes=cut,
        parameters=sum(p.size for p in parameters.values()),
        ignored=(dropped,) if attention_dropout else (),
    )


_HEAD = """\
# Made of a model in GPT-2's layout by `pipetrain import gpt2`. Weights: the file beside it.
"""


def _job(folder: Path, sizes: Gpt2, *, has_tokenizer: bool) -> dict[str, Any]:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.absolute().name).strip("-._")[:100]
    model = model_document(sizes)
    data: dict[str, Any] = {"source": NUMBERS, "validation": 0.1}
    if has_tokenizer:
        data = {"source": "stdlib", "tokens": run_files.TOKENIZER, "validation": 0.01}
    return {
        "name": name or "gpt2",
        "seed": 0,
        "precision": "float32",
        "model": {**model, "weights": run_files.MODEL},
        "data": {**data, "block": sizes.positions, "windows": "random"},
        "training": {
            "steps": 100,
            "batch_size": 4,
            "optimizer": {"adamw": {"learning_rate": 3e-5}},
            "clip_norm": 1.0,
        },
        "pipeline": {"stages": 2},
    }


def _vocabulary(folder: Path, sizes: Gpt2) -> Vocabulary:
    path = folder / run_files.TOKENIZER
    if not path.is_file():
        return Vocabulary("numbers", sizes.vocabulary)
    found = read_tokenizer(str(path))
    if found.size > sizes.vocabulary:
        raise InvalidData(f"{path}: has {found.size} tokens, but the model knows {sizes.vocabulary} by its {CONFIG}")
    return found


def _tensors_of(folder: Path) -> Path:
    path = folder / TENSORS
    if path.is_file():
        return path
    if (folder / _INDEX).is_file():
        raise InvalidData(
            f"{folder}: its weights are in several files ({_INDEX}); save the model again as one, with "
            "save_pretrained(FOLDER, max_shard_size='1TB')"
        )
    if (folder / _PICKLE).is_file():
        raise InvalidData(f"{folder}: {_PICKLE} is a pickle, which is not read; save the model again as safetensors")
    raise InvalidData(f"{folder}: has {CONFIG}, but no {TENSORS}")


def _names(tensors: WeightsFile) -> dict[str, str]:
    """The tensors' names in the file by their names without the prefix; masks are left out."""
    found: dict[str, str] = {}
    for name in tensors.shapes:
        short = name.removeprefix(_PREFIX)
        if _MASK.fullmatch(short):
            continue
        if short in found:
            raise InvalidData(f"{tensors.path}: has both {found[short]} and {name}")
        found[short] = name
    return found


def _require_tensors(tensors: WeightsFile, names: Mapping[str, str], sizes: Gpt2) -> None:
    """Raises InvalidData unless the file has the tensors of a model of these sizes, each in its shape."""
    wanted = _shapes(sizes)
    head = {"lm_head.weight"} if sizes.tied else set()
    if missing := [name for name in wanted if name not in names]:
        raise InvalidData(f"{tensors.path}: lacks {some(missing)}, which its {CONFIG} implies")
    if unknown := [names[name] for name in names if name not in wanted and name not in head]:
        raise InvalidData(f"{tensors.path}: has {some(unknown)}, which its {CONFIG} does not provide for")
    for name, shape in wanted.items():
        given = tensors.shapes[names[name]]
        if given != shape:
            raise InvalidData(
                f"{tensors.path}: {names[name]} has the shape {list(given)}, must be {list(shape)} by its {CONFIG}"
            )
    for name in [*wanted, *head & names.keys()]:
        kind = tensors.dtype(names[name])
        if kind not in REAL:
            raise InvalidData(f"{tensors.path}: {names[name]} is of {kind}, must be of {', '.join(REAL)}")
    if head & names.keys():
        own, shared = tensors.array(names["lm_head.weight"]), tensors.array(names["wte.weight"])
        if not np.array_equal(own, shared):
            raise InvalidData(
                f"{tensors.path}: lm_head.weight is not wte.weight, but its {CONFIG} ties them; write "
                '"tie_word_embeddings": false there to keep both'
            )


def _shapes(sizes: Gpt2) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors of a model, by their names without the prefix."""
    spec = parse_job(_job(Path("gpt2"), sizes, has_tokenizer=False))
    _, pairs = as_gpt2(spec.model_spec().network)
    return {pair.theirs.removeprefix(_PREFIX): pair.their_shape for pair in pairs}


def _parameters(
    tensors: WeightsFile, names: Mapping[str, str], pairs: Sequence[Pair], precision: str
) -> Iterator[tuple[str, Array]]:
    for pair in pairs:
        assert pair.ours is not None, "the job has every bias"
        array = tensors.array(names[pair.theirs.removeprefix(_PREFIX)]).astype(precision, copy=False)
        array = array.T if pair.turned else array[: pair.shape[0]]  # of the positions, those that are kept
        yield pair.ours, np.ascontiguousarray(array)
