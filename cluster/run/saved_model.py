"""Writes and reads trained models: the files of a run directory for `evaluate`, `predict`, `generate` and others."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cluster.checkpoints.folder import CheckpointFolder
from cluster.checkpoints.whole_model import CheckpointParameters, write_held_model, write_whole_model
from cluster.data.files import one_line
from cluster.data.tables.preprocessing import NumberRule, Preprocessing, TargetRule
from cluster.data.texts.loading import Vocabulary
from cluster.data.weights import REAL
from cluster.run.run_errors import os_error_of
from coordinator import run_files
from coordinator.job.spec import JobSpec, load_job, parse_job
from stages.arrays import Array
from stages.errors import InvalidData, InvalidJob

MODEL_FORMAT = "pipetrain.model/1"
_OF_TRAINING = ("weights", "weights_map", "freeze")
"""Entries of `model` that say how it is trained, not what it is."""


def save_model(
    folder: Path,
    spec: JobSpec,
    parameters: Mapping[str, Array] | CheckpointParameters,
    vocabulary: Vocabulary | None,
) -> None:
    """Write model.safetensors (names and shapes of torch.nn.Sequential), model.json and the vocabulary's tokenizer.
    Each file is written whole or not at all. Raises OSError."""
    if isinstance(parameters, CheckpointParameters):
        _write_from_checkpoint(folder / run_files.MODEL, parameters)
    else:
        ops = spec.model_spec().network.ops  # in the order of a checkpoint, so that the file has the same bytes
        own = [name for op in ops for name, one in op.parameters if one.tied_to is None]
        write_held_model(folder / run_files.MODEL, {n: parameters[n] for n in own}, {"format": MODEL_FORMAT})
    if vocabulary is not None and vocabulary.tokenizer:
        write_whole(folder / run_files.TOKENIZER, vocabulary.tokenizer.encode())
    described = _describe(spec, vocabulary)
    write_whole(folder / run_files.MODEL_LAYERS, (json.dumps(described, indent=2) + "\n").encode())


def _write_from_checkpoint(path: Path, parameters: CheckpointParameters) -> None:
    write_whole_model(path, parameters, {"format": MODEL_FORMAT})


def write_tensors(path: Path, tensors: Mapping[str, Array], metadata: dict[str, str]) -> None:
    """Write a .safetensors file, whole or not at all. Raises OSError."""
    temporary = path.with_name(run_files.unfinished(path.name))
    try:
        save_file(dict(tensors), temporary, metadata=metadata)
    except SafetensorError as error:
        temporary.unlink(missing_ok=True)
        raise os_error_of(str(error), temporary) from None
    _replace(temporary, path)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all. Raises OSError."""
    temporary = path.with_name(run_files.unfinished(path.name))
    try:
        temporary.write_bytes(content)
        _replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class FinishedRun:
    """A trained run, read from disk. `parameter` reads weights one by one."""

    spec: JobSpec
    weights: Path
    vocabulary: Vocabulary | None = None
    """The meaning of its tokens; None if the network is not for text."""
    preprocessing: Preprocessing | None = None
    """How columns become its inputs; None if it was trained on arrays or text."""
    has_rules: bool = False
    """Whether `preprocessing` was fitted to its training rows: an older version used columns as they were."""

    def parameter(self, name: str) -> Array:
        """Return a parameter by its name in model.safetensors, in the job's precision. Raises InvalidData if the file
        does not have it in the model's shape."""
        try:
            with safe_open(self.weights, framework="numpy") as file:
                kind, array = file.get_slice(name).get_dtype(), None
                if kind in REAL:
                    array = file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise InvalidData(f"{self.weights}: {name} cannot be read: {one_line(error)}") from None
        if array is None:
            raise InvalidData(f"{self.weights}: {name} is of {kind}, must be of {', '.join(REAL)}")
        wanted = self._shapes[name]
        if array.shape != wanted:
            raise InvalidData(
                f"{self.weights}: {name} has the shape {list(array.shape)}, but the model's has {list(wanted)}"
            )
        converted: Array = array.astype(self.spec.precision, copy=False)
        return converted

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        ops = self.spec.model_spec().network.ops
        return {name: parameter.shape for op in ops for name, parameter in op.parameters}


def _what_to_do(path: Path) -> str:
    """Return what to do about a run directory without a model; "" if it is none."""
    if not (path / run_files.JOB).is_file():
        return ""
    if CheckpointFolder(path / run_files.CHECKPOINTS).steps():
        return (
            f"; `pipetrain resume {path}` goes on with it, `pipetrain checkpoints export {path}` has its weights so far"
        )
    return "; wait until it has ended"


def open_run(path: Path) -> FinishedRun:
    """Read a run directory with a trained model. Raises InvalidData if `path` is not one."""
    for name in run_files.MODEL_FILES:
        if not (path / name).exists():
            raise InvalidData(
                f"{path}: has no {name}, so it is not the run directory of a finished job{_what_to_do(path)}"
            )
    try:
        spec = load_job(path / run_files.JOB)
        layers = json.loads((path / run_files.MODEL_LAYERS).read_text(encoding="utf-8"))
        told = layers.get("vocabulary")
        vocabulary = None if told is None else Vocabulary.from_document(told, path)
        if not spec.is_resolved:  # model.json has the sizes that follow from the data
            spec = parse_job({**spec.document(), "model": layers["model"]})
    except InvalidJob as error:
        raise InvalidData(f"{path / run_files.JOB}: {error.problems[0]}") from None
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise InvalidData(f"{path / run_files.MODEL_LAYERS}: cannot be read: {error}") from None
    rules = _read_preprocessing(path)
    preprocessing = rules or _without_rules(spec, layers.get("columns"))
    return FinishedRun(spec, path / run_files.MODEL, vocabulary, preprocessing, has_rules=rules is not None)


def _read_preprocessing(folder: Path) -> Preprocessing | None:
    file = folder / run_files.PREPROCESSING
    try:
        return Preprocessing.from_document(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise InvalidData(f"{file}: cannot be read: {error}") from None


def _without_rules(spec: JobSpec, columns: Sequence[str] | None) -> Preprocessing | None:
    """Return the rules of a run of an older version, which used columns of numbers as they were."""
    if columns is None:
        return None
    target = TargetRule(names=spec.data.target or (), offsets=(0.0,), divisors=(1.0,))
    return Preprocessing(inputs=tuple(NumberRule(name=name) for name in columns), target=target)


def _describe(spec: JobSpec, vocabulary: Vocabulary | None) -> dict[str, Any]:
    model = spec.model_spec()
    layers = [
        {"index": op.index, "kind": op.kind, "in": op.layer.shape_in.numbers, "out": op.layer.shape_out.numbers}
        | {"path": list(op.path)}
        for op in model.network.ops
    ]
    return {
        "format": MODEL_FORMAT,
        "name": spec.name,
        "input": list(model.input_shape),
        "precision": model.precision,
        "loss": spec.model.loss.document(),
        "layers": layers,
        "model": {
            key: value
            for key, value in spec.document()["model"].items()
            if key not in ("weights", "weights_map", "freeze")
        },
        "vocabulary": None if vocabulary is None else vocabulary.document(),
    }


def _replace(temporary: Path, final: Path) -> None:
    """Flush the new file to disk, then rename it: a reader sees the whole old file or the whole new one."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(final)
