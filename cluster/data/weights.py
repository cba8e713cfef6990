"""Reads weights from a .safetensors file, a part of a tensor at a time."""

from __future__ import annotations

import math
import zlib
from typing import Any, Self

import numpy as np
from safetensors import SafetensorError, safe_open

from cluster.data.files import one_line, open_source
from cluster.data.rules import SourceRules
from stages.arrays import Array
from stages.diagnosis import is_finite
from stages.errors import InvalidData

REAL = ("F64", "F32", "F16")
"""The types of numbers that can be read, by safetensors' names. They are converted to the job's precision."""
_BLOCK = 2**22
"""Numbers read at a time: a whole parameter might not fit into memory together with its stage."""
_CRC_BYTES = 2**22


class WeightsFile:
    """An open file of weights; use it in a `with`. Raises InvalidData with one line that names the file."""

    def __init__(self, path: str, rules: SourceRules | None = None) -> None:
        self.path = path
        self._file = open_source(path, rules)
        try:
            # by its descriptor: the path may lead to another file by now
            opened: Any = safe_open(f"/proc/self/fd/{self._file.fileno()}", framework="numpy")
            names = [*opened.keys()]
            self.shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in names}
        except (SafetensorError, OSError) as error:
            self._file.close()
            raise InvalidData(f"{path}: is no safetensors file: {one_line(error)}") from None
        self._tensors = opened

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        del self._tensors  # the file stays mapped as long as this lives

    def dtype(self, name: str) -> str:
        """Return a tensor's type of numbers by safetensors' name."""
        return str(self._tensors.get_slice(name).get_dtype())

    def read(self, name: str, out: Array) -> None:
        """Write a parameter into `out`, which has its shape."""
        try:
            tensor = self._tensors.get_slice(name)
            rows = max(1, _BLOCK // max(1, out[:1].size))
            for a in range(0, len(out), rows):
                out[a : a + rows] = tensor[a : min(a + rows, len(out))]
        except (SafetensorError, OSError) as error:
            raise InvalidData(f"{self.path}: {name} cannot be read: {one_line(error)}") from None

    def array(self, name: str) -> Array:
        """Return a copy of a tensor, in the file's type."""
        array: Array = self._tensors.get_tensor(name)
        return array

    def require_finite(self, name: str, precision: str) -> None:
        """Raise InvalidData if a tensor has a value that is NaN or infinite in this precision. Reads one block of
        numbers at a time."""
        shape = self.shapes[name]
        tensor, rows = self._tensors.get_slice(name), max(1, _BLOCK // max(1, math.prod(shape[1:])))
        for a in range(0, shape[0], rows):
            with np.errstate(over="ignore"):
                values = tensor[a : min(a + rows, shape[0])].astype(precision)
            if not is_finite(values):
                raise self._not_finite(name, tensor, a, values)

    def _not_finite(self, name: str, tensor: Any, first: int, values: Array) -> InvalidData:
        """Return the error for the first wrong one of these rows, which begin at row `first`."""
        row, *rest = map(int, np.argwhere(~np.isfinite(values))[0])
        given = float(tensor[first + row : first + row + 1][(0, *rest)])
        what = f"{given}" if not math.isfinite(given) else f"{given:g}, too large for {values.dtype}"
        return InvalidData(f"{self.path}: {name}{[first + row, *rest]} is {what}; a job begins with finite weights")

    def checksum(self, crc: int = 0) -> int:
        """Return the CRC-32 of the file after what `crc` is of, by which hosts detect that they begin with different
        weights."""
        self._file.seek(0)
        while part := self._file.read(_CRC_BYTES):
            crc = zlib.crc32(part, crc)
        return crc
