"""Tensors in .safetensors files, in their places.

Headers are checked by the library of safetensors. The numbers are read here, a part at a time, because the library
refuses types that NumPy does not have, such as bfloat16, and copies what can be read to where it is needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from cluster.data.files import one_line
from stages.arrays import Array
from stages.errors import InvalidData

PART_BYTES = 2**22
_NUMPY = dict(
    **{f"F{bits}": f"<f{bits // 8}" for bits in (64, 32, 16)},
    **{f"I{bits}": f"<i{bits // 8}" for bits in (64, 32, 16, 8)},
    **{f"U{bits}": f"<u{bits // 8}" for bits in (64, 32, 16, 8)},
    BOOL="?",
    BF16="<u2",
)
"""NumPy's types by safetensors' names. Of BF16 it has only the bits."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file: `kind` is its type by safetensors' name; its bytes begin at `start`."""

    name: str
    path: Path
    kind: str
    shape: tuple[int, ...]
    start: int
    n_bytes: int

    def parts(self) -> Iterator[bytes]:
        """Yield its bytes in parts of whole numbers. Raises OSError, also if the file is shorter than its header
        says."""
        left = self.n_bytes
        with self.path.open("rb") as file:
            file.seek(self.start)
            while left > 0:
                part = file.read(min(PART_BYTES, left))
                if not part:
                    raise OSError(f"{self.path} is shorter than its header says")
                left -= len(part)
                yield part

    def read_into(self, out: Array) -> None:
        """Read all numbers into a contiguous array of its shape and type. Raises OSError as `parts` does, and
        ValueError for another shape or type."""
        if out.shape != self.shape or out.dtype != np.dtype(_NUMPY.get(self.kind, "V")) or not out.flags.c_contiguous:
            raise ValueError(f"it is {self.kind} {list(self.shape)}, not {out.dtype} {list(out.shape)}")
        content, at = memoryview(out.reshape(-1).view(np.uint8).data), 0
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.start)
            while at < self.n_bytes:
                n = file.readinto(content[at : at + PART_BYTES])
                if not n:
                    raise OSError(f"{self.path} is shorter than its header says")
                at += n

    @property
    def has_numbers(self) -> bool:
        """Whether `numbers` knows the type."""
        return self.kind in _NUMPY

    def numbers(self, part: bytes) -> Array:
        """Return the numbers of a part as float64."""
        found = np.frombuffer(part, dtype=_NUMPY[self.kind])
        if self.kind == "BF16":  # the upper half of a float32
            found = (found.astype(np.uint32) << 16).view(np.float32)
        return found.astype(np.float64)


def tensors_of(path: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a .safetensors file, in the order of their bytes. Raises InvalidData."""
    try:
        if isinstance(path, Path):  # else it is at a URL
            with safe_open(path, framework="numpy"):  # which checks the header
                pass
        with path.open("rb") as file:
            n_bytes = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(n_bytes))
    except (SafetensorError, OSError, ValueError) as error:
        raise InvalidData(f"{path}: is no whole safetensors file: {one_line(error)}") from None
    header.pop("__metadata__", None)
    found = []
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        found.append(StoredTensor(name, path, entry["dtype"], tuple(entry["shape"]), 8 + n_bytes + start, stop - start))
    return {one.name: one for one in sorted(found, key=lambda one: one.start)}
