"""checkpoint.json: what a checkpoint holds. It is written last, so a folder without it is not a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np

from coordinator.checkpoints.position import Position
from stages.errors import InvalidData
from stages.snapshots import WrittenFile

CHECKPOINT_FORMAT = "pipetrain.checkpoint/1"
MANIFEST = "checkpoint.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A checkpoint: the state of the job `document` at `position`.

    `fingerprint` is the checksum of the data that the job trains on, `train_rows` its training rows. `files` are
    sorted by layer. `validation` has the figures of the last evaluation, None before the first. `written_at` is in
    seconds since 1970. `versions` has the versions of what wrote it.
    """

    position: Position
    document: Mapping[str, Any]
    fingerprint: int
    train_rows: int
    files: tuple[WrittenFile, ...]
    validation: Mapping[str, float] | None = None
    written_at: float = 0.0
    versions: Mapping[str, str] = field(default_factory=lambda: _versions())

    @property
    def step(self) -> int:
        """The number of updates that the state has."""
        return self.position.step

    @property
    def n_bytes(self) -> int:
        """The bytes of all files."""
        return sum(file.n_bytes for file in self.files)

    def content(self) -> bytes:
        """Return the file's content."""
        document = {
            "format": CHECKPOINT_FORMAT,
            "position": self.position.document(),
            "job": self.document,
            "data": {"fingerprint": self.fingerprint, "train_rows": self.train_rows},
            "validation": self.validation,
            "written_at": self.written_at,
            "versions": dict(self.versions),
            "files": [
                {
                    "layer": file.layer,
                    "name": file.name,
                    "bytes": file.n_bytes,
                    "crc32": file.crc32,
                    "tensors": {name: [kind, list(shape)] for name, (kind, shape) in file.tensors.items()},
                }
                for file in self.files
            ],
        }
        return (json.dumps(document, indent=1) + "\n").encode()

    @staticmethod
    def read(content: bytes, source: str) -> Manifest:
        """Return the manifest from a file's content. Raises InvalidData."""
        try:
            found = json.loads(content)
            if found["format"] != CHECKPOINT_FORMAT:
                raise InvalidData(
                    f"{source}: has the format {found['format']!r}, but this pipetrain ({version('pipetrain')}) reads "
                    f"{CHECKPOINT_FORMAT!r}; {_what_reads(found)}"
                )
            return Manifest(
                position=Position.from_document(found["position"]),
                document=found["job"],
                fingerprint=int(found["data"]["fingerprint"]),
                train_rows=int(found["data"]["train_rows"]),
                files=tuple(map(_file, found["files"])),
                validation=found["validation"],
                written_at=float(found["written_at"]),
                versions=dict(found["versions"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidData(f"{source}: is no manifest of a checkpoint: {error}") from None


def _what_reads(found: Mapping[str, Any]) -> str:
    """Return what reads a manifest of another format: what has written it, if that is told."""
    versions = found.get("versions")
    writer = versions.get("pipetrain") if isinstance(versions, Mapping) else None
    return f"pipetrain {writer}, which wrote it, reads it" if isinstance(writer, str) else "a newer version may read it"


def _versions() -> dict[str, str]:
    return {"pipetrain": version("pipetrain"), "numpy": np.__version__}


def _file(entry: Mapping[str, Any]) -> WrittenFile:
    tensors = {str(name): (str(kind), tuple(shape)) for name, (kind, shape) in entry["tensors"].items()}
    if "/" in entry["name"]:  # a manifest names files beside itself
        raise ValueError(f"{entry['name']!r} is no name of a layer's file")
    return WrittenFile(str(entry["layer"]), str(entry["name"]), int(entry["bytes"]), int(entry["crc32"]), tensors)


def in_layer_order(files: Sequence[WrittenFile]) -> tuple[WrittenFile, ...]:
    """Return files by the paths of their layers: 2 before 10."""
    return tuple(sorted(files, key=lambda file: tuple(map(int, file.layer.split(".")))))
