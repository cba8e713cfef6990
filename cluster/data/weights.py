"""Reads a network's initial weights from a .safetensors file that has every parameter by its name, one at a time."""

from __future__ import annotations

import math
import zlib
from typing import Any, Self

import numpy as np
from safetensors import SafetensorError, safe_open

from cluster.data.files import one_line, open_source
from cluster.data.rules import SourceRules
from coordinator.job.spec import JobSpec
from coordinator.texts import some
from stages.arrays import Array
from stages.diagnosis import is_finite
from stages.errors import InvalidData
from stages.spec import ModelSpec

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

    def require_fit(self, model: ModelSpec) -> None:
        """Raise InvalidData unless the file has exactly the model's parameters, each in its shape."""
        network = model.network
        wanted = {name: spec.shape for op in network.ops for name, spec in op.parameters if spec.tied_to is None}
        if missing := [name for name in wanted if name not in self.shapes]:
            raise InvalidData(f"{self.path}: has no {some(missing)}, with which the model would begin")
        if unknown := [name for name in self.shapes if name not in wanted]:
            raise InvalidData(f"{self.path}: has {some(unknown)}, which is no parameter of the model")
        for name, shape in wanted.items():
            if self.shapes[name] != shape:
                raise InvalidData(
                    f"{self.path}: {name} has the shape {list(self.shapes[name])}, but the model's has {list(shape)}"
                )
            if self.dtype(name) not in REAL:
                raise InvalidData(f"{self.path}: {name} is of {self.dtype(name)}, must be of {', '.join(REAL)}")

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

    def require_finite(self, model: ModelSpec) -> None:
        """Raise InvalidData, naming the parameter, for a value that is NaN or infinite in the model's precision. Reads
        one block of numbers at a time; the file must fit the model."""
        for name, shape in self.shapes.items():
            tensor, rows = self._tensors.get_slice(name), max(1, _BLOCK // max(1, math.prod(shape[1:])))
            for a in range(0, shape[0], rows):
                with np.errstate(over="ignore"):
                    values = tensor[a : min(a + rows, shape[0])].astype(model.precision)
                if not is_finite(values):
                    raise self._not_finite(name, tensor, a, values)

    def _not_finite(self, name: str, tensor: Any, first: int, values: Array) -> InvalidData:
        """Return the error for the first wrong one of these rows, which begin at row `first`."""
        row, *rest = map(int, np.argwhere(~np.isfinite(values))[0])
        given = float(tensor[first + row : first + row + 1][(0, *rest)])
        what = f"{given}" if not math.isfinite(given) else f"{given:g}, too large for {values.dtype}"
        return InvalidData(f"{self.path}: {name}{[first + row, *rest]} is {what}; a job begins with finite weights")

    def checksum(self) -> int:
        """Return the CRC-32 of the file, by which hosts detect that they begin with different weights."""
        crc = 0
        self._file.seek(0)
        while part := self._file.read(_CRC_BYTES):
            crc = zlib.crc32(part, crc)
        return crc


def require_weights(spec: JobSpec, rules: SourceRules | None = None) -> None:
    """Raise InvalidData if `model.weights` do not fit the model. Reads names and shapes, but no numbers."""
    if spec.model.weights is not None:
        with WeightsFile(spec.model.weights, rules) as weights:
            weights.require_fit(spec.model_spec())


def check_weights(spec: JobSpec, rules: SourceRules | None = None) -> int | None:
    """Return the checksum of `model.weights`; None if the job draws its weights. Raises InvalidData if they do not fit
    the model, or are not finite."""
    if spec.model.weights is None:
        return None
    with WeightsFile(spec.model.weights, rules) as weights:
        weights.require_fit(spec.model_spec())
        weights.require_finite(spec.model_spec())
        return weights.checksum()


def begin_with(spec: JobSpec) -> dict[str, Array] | None:
    """Return all parameters of `model.weights` in the job's precision, for workers in this process; None if the job
    draws its weights."""
    if spec.model.weights is None:
        return None
    with WeightsFile(spec.model.weights) as weights:
        weights.require_fit(spec.model_spec())
        found: dict[str, Array] = {}
        for name, shape in weights.shapes.items():
            found[name] = np.empty(shape, dtype=spec.precision)
            weights.read(name, found[name])
        return found
