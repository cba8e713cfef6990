"""Checkpoints as lines for people, and as plain values."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from cluster.checkpoints.comparing import Magnitude, TensorDifference
from cluster.checkpoints.folder import CheckpointFolder, read_manifest
from cluster.checkpoints.manifest import Manifest
from cluster.checkpoints.stored import Stored
from cluster.checkpoints.tensor_files import StoredTensor
from cluster.cli.figure_tables import aligned
from cluster.cli.texts import clock, since
from coordinator.checkpoints.policy import KeptCheckpoint, best_step
from coordinator.job.spec import parse_job
from coordinator.texts import counted, number, share, size, some
from stages.errors import InvalidData, InvalidJob
from stages.network import path_name

_WIDEST = 80
"""The most characters of a name in a table; --json has the rest."""


def listed(folder: CheckpointFolder) -> list[dict[str, Any]]:
    """Return the facts of each whole checkpoint, newest first. One whose manifest cannot be read has a `problem`."""
    rows: list[dict[str, Any]] = []
    manifests: dict[int, Manifest] = {}
    for step in reversed(folder.steps()):
        row: dict[str, Any] = {"step": step, "place": str(folder.place(step)), "newest": not rows, "best": False}
        rows.append(row)
        try:
            manifest = manifests[step] = read_manifest(folder.place(step))
        except InvalidData as error:
            row["problem"] = str(error)
            continue
        row |= {"bytes": manifest.n_bytes, "files": len(manifest.files), "written_at": manifest.written_at}
        row["validation"] = None if manifest.validation is None else dict(manifest.validation)
    if manifests:
        section = next(iter(manifests.values())).document.get("checkpoint") or {}
        figure = str(section.get("best") or "validation_loss")
        name = figure.removeprefix("validation_")
        best = best_step([KeptCheckpoint(k, (m.validation or {}).get(name)) for k, m in manifests.items()], figure)
        for row in rows:
            row["best"] = row["step"] == best
    return rows


def listed_lines(rows: Sequence[Mapping[str, Any]], now: datetime) -> Iterator[str]:
    """Yield the table of `listed`."""
    table: list[Sequence[str]] = []
    for row in rows:
        step, marks = str(row["step"]), ", ".join(mark for mark in ("newest", "best") if row[mark])
        if "problem" in row:
            table.append((step, "", "", "", "", "", f"{marks} {row['problem']}".strip()))
            continue
        figures, at = row["validation"] or {}, datetime.fromtimestamp(row["written_at"], UTC)
        measured = number(figures.get("loss")), share(figures.get("accuracy"))
        table.append((step, size(row["bytes"]), clock(at), since(at, now), *measured, marks))
    return aligned(("step", "bytes", "written", "age", "validation loss", "accuracy", ""), table, left=(2, 6))


def manifest_document(stored: Stored) -> dict[str, Any]:
    """Return the facts of a checkpoint or a file, without its tensors."""
    manifest = stored.manifest
    if manifest is None:
        return {"place": str(stored.place), "checkpoint": None}
    about: dict[str, Any] = {
        "position": manifest.position.document(),
        "job": manifest.document,
        "validation": manifest.validation,
    }
    about |= {"written_at": manifest.written_at, "versions": dict(manifest.versions), "bytes": manifest.n_bytes}
    about |= {"fingerprint": manifest.fingerprint, "train_rows": manifest.train_rows}
    return {"place": str(stored.place), "checkpoint": about}


def manifest_lines(stored: Stored) -> Iterator[str]:
    """Yield the facts of a checkpoint or a file."""
    manifest = stored.manifest
    parameters = stored.without_vectors().tensors.values()
    numbers = sum(math.prod(one.shape) for one in parameters)
    if manifest is None:
        yield f"{stored.place}: {counted(len(parameters), 'tensor')} of {numbers:,} numbers"
        return
    at, job = datetime.fromtimestamp(manifest.written_at, UTC), manifest.document
    yield (
        f"{stored.place}: after step {manifest.step}, {counted(len(manifest.files), 'file')}, "
        f"{size(manifest.n_bytes)}, written {clock(at)} by pipetrain {manifest.versions.get('pipetrain', '?')}"
    )
    training, pipeline = job.get("training", {}), job.get("pipeline", {})
    facts = [f"job {job.get('name')}", f"seed {job.get('seed')}", str(job.get("precision"))]
    facts += [str(name) for name in training.get("optimizer", {})]
    facts += [f"{key} {training[key]}" for key in ("epochs", "steps", "batch_size") if key in training]
    facts += [f"{counted(pipeline.get('stages', 1), 'stage')}, {pipeline.get('schedule')}"]
    yield " · ".join(facts)
    yield f"data {job.get('data', {}).get('source')}: {counted(manifest.train_rows, 'training row')}"
    if figures := manifest.validation:
        accuracy = "" if figures.get("accuracy") is None else f", accuracy {figures['accuracy']:.2%}"
        yield f"validation loss {number(figures.get('loss'))}{accuracy}"
    vectors = [*dict.fromkeys(name.rpartition(".")[2] for name in stored.vectors)]
    yield (
        f"{counted(len(parameters), 'parameter')} of {numbers:,} numbers; the optimizer's vectors: "
        f"{some(vectors, 9) if vectors else 'none'}"
    )


def tensor_document(tensor: StoredTensor, sizes: Mapping[str, Magnitude | None]) -> dict[str, Any]:
    """Return the facts of a tensor; with a size if it was computed."""
    found = {"name": tensor.name, "dtype": tensor.kind, "shape": list(tensor.shape), "bytes": tensor.n_bytes}
    found["file"] = tensor.path.name
    if (of := sizes.get(tensor.name)) is not None:
        found |= {"norm": of.norm, "largest": of.largest, "not_finite": of.not_finite}
    return found


def tensor_lines(stored: Stored, sizes: Mapping[str, Magnitude | None] | None) -> Iterator[str]:
    """Yield the table of tensors, with their layers if the job is known."""
    kinds = _layer_kinds(stored)
    heading = ["tensor", "layer", "type", "shape", "bytes", *([] if sizes is None else ["norm", "largest", ""])]
    table = []
    for name, one in stored.tensors.items():
        kind = next((kinds[path] for path in _beginnings(name) if path in kinds), "")
        row = [name, kind, one.kind, " × ".join(map(str, one.shape)) or "a number", f"{one.n_bytes:,}"]
        if sizes is not None:
            of = sizes[name]
            row += ["", "", ""] if of is None else [f"{of.norm:.6g}", f"{of.largest:.6g}", _not_finite(of.not_finite)]
        table.append(row)
    return aligned(heading, table, left=(0, 1, 2, 3, 7), widest=_WIDEST)


def _not_finite(n: int) -> str:
    return f"{n:,} NaN or infinite" if n else ""


def _beginnings(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:n]) for n in range(len(parts), 0, -1))


def _layer_kinds(stored: Stored) -> dict[str, str]:
    """Return the kind of each layer by its path; nothing if this version does not read the job."""
    with contextlib.suppress(InvalidJob):
        if stored.manifest is not None:
            ops = parse_job(dict(stored.manifest.document)).model_spec().network.ops
            return {path_name(op.path): op.kind for op in ops}
    return {}


def difference_document(one: TensorDifference) -> dict[str, Any]:
    """Return a comparison as plain values. Distances that are not finite are null, as JSON has no such numbers."""
    found: dict[str, Any] = {"name": one.name, "verdict": one.verdict}
    for key, tensor in (("a", one.first), ("b", one.second)):
        found[key] = None if tensor is None else {"dtype": tensor.kind, "shape": list(tensor.shape)}
    for key, value in (("largest", one.largest), ("relative", one.relative)):
        found[key] = value if value is not None and math.isfinite(value) else None
    return found


def difference_lines(found: Sequence[TensorDifference], *, only_parameters: bool) -> Iterator[str]:
    """Yield the table of the tensors that differ, and a summary."""
    differing = [one for one in found if one.verdict != "equal"]
    if differing:
        yield from aligned(
            ("tensor", "", "A", "B", "largest", "relative"),
            [
                (one.name, one.verdict, _form(one.first), _form(one.second), *map(_far, (one.largest, one.relative)))
                for one in differing
            ],
            left=(0, 1, 2, 3),
            widest=_WIDEST,
        )
    which = "parameter" if only_parameters else "tensor"
    equal = len(found) - len(differing)
    yield f"{counted(len(found), which)}: {equal} bitwise equal" + (f", {len(differing)} not" if differing else "")


def _form(tensor: StoredTensor | None) -> str:
    return "" if tensor is None else f"{tensor.kind} {' × '.join(map(str, tensor.shape))}"


def _far(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
