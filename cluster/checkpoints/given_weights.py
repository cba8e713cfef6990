"""The weights with which a job begins (`model.weights`): of a .safetensors file, of a run directory or a checkpoint.

Without `model.weights_map` they must be exactly the model's parameters. With it, parameters are matched by their names
and shapes, or by the map; the others begin as they are drawn, and a line says which these are.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import numpy as np

from cluster.checkpoints.manifest import MANIFEST, Manifest
from cluster.checkpoints.stored import newest_place
from cluster.data.files import open_source
from cluster.data.rules import SourceRules
from cluster.data.weights import REAL, WeightsFile
from coordinator.job.nearest import did_you_mean
from coordinator.job.spec import JobSpec
from coordinator.texts import counted, some
from stages.arrays import Array
from stages.errors import InvalidData
from stages.network import named_by

_MOST_TOLD = 8


class GivenWeights:
    """The open weights of a job whose model is known; use it in a `with`. Raises InvalidData.

    `matched` has, for each of the model's parameters that is given, the name in the files.
    """

    def __init__(self, spec: JobSpec, rules: SourceRules | None = None) -> None:
        assert spec.model.weights is not None, "the job draws its weights"
        self.path = spec.model.weights
        self._spec, self._map = spec, spec.model.weights_map
        network = spec.model_spec().network
        self._wanted = {name: p.shape for op in network.ops for name, p in op.parameters if p.tied_to is None}
        self._mapped = set[str]()  # names in the files that the map names
        self._stack, self._files = ExitStack(), list[WeightsFile]()
        try:
            for path in _files_of(self.path, rules):
                self._files.append(self._stack.enter_context(WeightsFile(path, rules)))
            self._of = {name: file for file in self._files for name in file.shapes}
            if len(self._files) > 1 or Path(self.path).is_dir():  # a checkpoint has vectors of the optimizer, too
                self._of = {name: file for name, file in self._of.items() if name.rpartition(".")[0] not in self._of}
            self.matched = self._all() if self._map is None else self._by_map(self._map)
            self._require_types()
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _shape(self, name: str) -> tuple[int, ...]:
        return self._of[name].shapes[name]

    def _all(self) -> dict[str, str]:
        """Return all parameters. Raises InvalidData unless they are exactly those of the files."""
        wanted = self._wanted
        if missing := [name for name in wanted if name not in self._of]:
            raise InvalidData(f"{self.path}: has no {some(missing)}, with which the model would begin")
        if unknown := [name for name in self._of if name not in wanted]:
            raise InvalidData(f"{self.path}: has {some(unknown)}, which is no parameter of the model")
        for name, shape in wanted.items():
            if self._shape(name) != shape:
                raise InvalidData(
                    f"{self.path}: {name} has the shape {list(self._shape(name))}, but the model's has {list(shape)}"
                )
        return {name: name for name in wanted}

    def _by_map(self, renamed: dict[str, str | None]) -> dict[str, str]:
        """Return the parameters that match by the map or, if it does not name them, by their own names."""
        by_map, names, taken = dict[str, str](), [*self._of], self._mapped
        for old in sorted(renamed, key=len, reverse=True):  # the longest path first: it is the most exact
            found = [name for name in named_by(old, names) if name not in taken]
            if not found:
                near = did_you_mean(old, _paths(names), 0.5)
                raise InvalidData(f"{self.path}: has no {old}, which model.weights_map names{near}")
            taken.update(found)
            new = renamed[old]
            for name in found if new is not None else ():
                target = f"{new}{name[len(old) :]}"
                if target not in self._wanted:
                    near = did_you_mean(target, self._wanted, 0.5)
                    raise InvalidData(f"model.weights_map: {name} would become {target}, which the model lacks{near}")
                if target in by_map:
                    raise InvalidData(f"model.weights_map: {by_map[target]} and {name} would both become {target}")
                if self._shape(name) != self._wanted[target]:
                    raise InvalidData(
                        f"{self.path}: {name} has the shape {list(self._shape(name))}, but the model's {target} has "
                        f"{list(self._wanted[target])}"
                    )
                by_map[target] = name
        own = {name: name for name in names if name not in taken and self._wanted.get(name) == self._shape(name)}
        found_all = {name: {**own, **by_map}.get(name) for name in self._wanted}
        matched = {name: old for name, old in found_all.items() if old is not None}
        if not matched:
            raise InvalidData(f"{self.path}: no parameter of the model has the name and the shape of one there")
        return matched

    def _require_types(self) -> None:
        for name in self.matched.values():
            if (kind := self._of[name].dtype(name)) not in REAL:
                raise InvalidData(f"{self.path}: {name} is of {kind}, must be of {', '.join(REAL)}")

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines about what is not begun with these weights; none if all is."""
        if self._map is None:
            return ()
        drawn = [name for name in self._wanted if name not in self.matched]
        left = [name for name in self._of if name not in self.matched.values()]
        lines = [f"{counted(len(self.matched), 'parameter')} of {len(self._wanted)} begin with those of {self.path}"]
        if drawn:
            layers = [*dict.fromkeys(name.rpartition(".")[0] for name in drawn)]
            each = "; ".join(self._drawn(layer, drawn) for layer in layers[:_MOST_TOLD])
            each += f"; and {len(layers) - _MOST_TOLD} more" if len(layers) > _MOST_TOLD else ""
            lines.append(f"{counted(len(layers), 'layer')} {_begin(layers)} with drawn weights: {each}")
        if left:
            lines.append(f"{counted(len(left), 'parameter')} of {self.path} not used: {some(left, _MOST_TOLD)}")
        return tuple(lines)

    def _drawn(self, layer: str, drawn: Iterable[str]) -> str:
        """Return a layer, with the parameters of it that are drawn if some are not, and why."""
        own = [name for name in named_by(layer, [*self._wanted]) if name.rpartition(".")[0] == layer]
        of_it = [name for name in own if name in set(drawn)]
        parts = "" if len(of_it) == len(own) else f" ({some([name.rpartition('.')[2] for name in of_it])})"
        other = [name for name in of_it if name in self._of and name not in self._mapped]
        if not other:
            return f"{layer}{parts}"
        theirs, ours = list(self._shape(other[0])), list(self._wanted[other[0]])
        return f"{layer}{parts}, whose {other[0].rpartition('.')[2]} has the shape {ours}, not {theirs}"

    def require_finite(self) -> None:
        """Raise InvalidData for a value that is NaN or infinite in the job's precision."""
        for name in self.matched.values():
            self._of[name].require_finite(name, self._spec.precision)

    def read(self, name: str, out: Array) -> None:
        """Write a parameter of the model into `out`, which has its shape; one that is not given stays as it is."""
        if (stored := self.matched.get(name)) is not None:
            self._of[stored].read(stored, out)

    def checksum(self) -> int:
        """Return the CRC-32 of all files together."""
        crc = 0
        for file in self._files:
            crc = file.checksum(crc)
        return crc


def _begin(layers: list[str]) -> str:
    return "begins" if len(layers) == 1 else "begin"


def _paths(names: Iterable[str]) -> list[str]:
    """Return all paths of layers and parameters with these names."""
    parts = [name.split(".") for name in names]
    return [*dict.fromkeys(".".join(one[:n]) for one in parts for n in range(1, len(one) + 1))]


def _files_of(path: str, rules: SourceRules | None) -> list[str]:
    """Return the files of weights of a checkpoint's folder; a file alone stands for itself."""
    (rules or SourceRules()).require_place(path)  # first: an error must not reveal whether a folder exists
    if not Path(path).is_dir():
        return [path]
    with open_source(str(Path(path) / MANIFEST), rules) as file:
        manifest = Manifest.read(file.read(), str(Path(path) / MANIFEST))
    return [str(Path(path) / file.name) for file in manifest.files]


def with_place_of_weights(spec: JobSpec, rules: SourceRules | None = None) -> JobSpec:
    """Return the job with the model or, if there is none, the newest checkpoint of the run that `model.weights` names,
    so that all workers begin with the same one. Raises InvalidData."""
    path = spec.model.weights
    if path is None:
        return spec
    (rules or SourceRules()).require_place(path)
    place = newest_place(Path(path)) if Path(path).is_dir() else Path(path)
    return spec if str(place) == path else spec.replace(model__weights=str(place))


def require_weights(spec: JobSpec, rules: SourceRules | None = None) -> None:
    """Raise InvalidData if `model.weights` do not fit the model. Reads names and shapes, but no numbers."""
    spec = with_place_of_weights(spec, rules)
    if spec.model.weights is not None:
        with GivenWeights(spec, rules):
            pass


def check_weights(spec: JobSpec, rules: SourceRules | None = None) -> int | None:
    """Return the checksum of `model.weights`; None if the job draws its weights. Raises InvalidData if they do not fit
    the model, or are not finite."""
    if spec.model.weights is None:
        return None
    with GivenWeights(spec, rules) as weights:
        weights.require_finite()
        return weights.checksum()


def lines_about_weights(spec: JobSpec, rules: SourceRules | None = None) -> tuple[str, ...]:
    """Return lines about the parameters with which the job does not begin as `model.weights` has them."""
    if spec.model.weights is None or spec.model.weights_map is None:
        return ()
    with GivenWeights(spec, rules) as weights:
        return weights.notes


def begin_with(spec: JobSpec) -> dict[str, Array] | None:
    """Return the parameters of `model.weights` in the job's precision, for workers in this process; None if the job
    draws its weights."""
    if spec.model.weights is None:
        return None
    with GivenWeights(spec) as weights:
        shapes = {name: p.shape for op in spec.model_spec().network.ops for name, p in op.parameters}
        found = {name: np.empty(shapes[name], dtype=spec.precision) for name in weights.matched}
        for name, out in found.items():
            weights.read(name, out)
        return found
