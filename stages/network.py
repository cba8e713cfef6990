"""A network as a flat list of operations over numbered values. This list is cut into stages.

Value 0 is the model's input, value k + 1 is the output of operation k. Layers that stand one after another use the
value before them; a residual connection is an operation `add` with two inputs, so a cut may fall inside it. Then two
values cross the cut:

    v1 ──norm──▸ v2 ──linear──▸ v3 ──add──▸ v4        between norm and linear: v1 and v2
     └────────────────────────────────┘

All values that cross a cut have the same number of columns, so a message is one array with their features stacked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from stages.layers import KINDS
from stages.layers.base import Layer, LayerProblem, ParameterSpec
from stages.layers.sequential import Add, LayerSpec
from stages.shapes import Shape

Path = tuple[int, ...]
"""A layer's place in the nested job file: (4, 1) is entry 1 of entry 4."""


class LayerError(Exception):
    """A layer does not fit: the path of the entry and what is wrong with it."""

    def __init__(self, path: Path, inside: Sequence[str], kind: str, problem: str) -> None:
        place = described(path, inside, kind)
        super().__init__(f"{path_name(path)} ({place}): {problem}")
        self.path, self.kind, self.place, self.problem = path, kind, place, problem


@dataclass(frozen=True, slots=True, kw_only=True)
class InitSpec:
    """How weights are drawn if their layer has no `init` of its own: with standard deviation `std`, and, with
    `scale_residual`, std / √(number of residual branches) in the last linear layer of each branch (Radford 2019)."""

    std: float
    scale_residual: bool = False


@dataclass(frozen=True, slots=True)
class Op:
    """Operation `index` applies `layer` to the values `inputs` and gives value index + 1. `inside` lists the kinds of
    the job file's entries around it, outermost first. `stds` has each parameter's standard deviation, None for a
    constant. `trained`: updates change a parameter that it uses."""

    index: int
    path: Path
    kind: str
    inside: tuple[str, ...]
    layer: Layer
    inputs: tuple[int, ...]
    stds: tuple[float | None, ...] = ()
    trained: bool = False

    @property
    def name(self) -> str:
        """The path as text, `2.0.1`, as a nested torch.nn.Sequential names its modules."""
        return path_name(self.path)

    @property
    def parameters(self) -> tuple[tuple[str, ParameterSpec], ...]:
        """The full name and the spec of each parameter."""
        return tuple((f"{self.name}.{p.name}", p) for p in self.layer.parameters)

    def __str__(self) -> str:
        """The operation's name for people: `4` in a flat list, else `2.3.0.1.0 (transformer block 3, attention,
        linear)`."""
        return self.name if len(self.path) == 1 else f"{self.name} ({described(self.path, self.inside, self.kind)})"


@dataclass(frozen=True, slots=True)
class Tie:
    """Operation `user` uses the weight `owner_name` of operation `owner` under `name`.

    Each use has a gradient of its own, summed over micro-batches like any other. At the end of a step these gradients
    are added to the owner's in the order of the users; after the update the users get the owner's new value. So the cut
    into stages changes no bit.
    """

    user: Op
    name: str
    owner: Op
    owner_name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Network:
    """All operations in order. `shapes[v]` is the shape of value v. `frozen` are the parameters that no update changes,
    by their owners' names."""

    ops: tuple[Op, ...]
    shapes: tuple[Shape, ...]
    frozen: frozenset[str] = frozenset()

    @property
    def output(self) -> Shape:
        """The shape of the last operation's output."""
        return self.shapes[-1]

    @cached_property
    def needs_gradient(self) -> tuple[bool, ...]:
        """For each value: whether it depends on parameters that are trained."""
        needs = [False]
        for op in self.ops:
            needs.append(op.trained or any(needs[v] for v in op.inputs))
        return tuple(needs)

    @cached_property
    def first_trained(self) -> int:
        """The first operation with trained parameters; the number of operations if none has any."""
        return next((op.index for op in self.ops if op.trained), len(self.ops))

    @cached_property
    def last_use(self) -> tuple[int, ...]:
        """For each value: the last operation that reads it; for the output, the number of operations."""
        last = list(range(len(self.shapes)))
        for op in self.ops:
            for v in op.inputs:
                last[v] = op.index
        last[-1] = len(self.ops)
        return tuple(last)

    @cached_property
    def _crossings(self) -> tuple[tuple[int, ...], ...]:
        found, alive = list[tuple[int, ...]]([(0,)]), [0]
        for k in range(1, len(self.ops) + 1):
            alive = [v for v in alive if self.last_use[v] >= k]
            alive.append(k)
            found.append(tuple(alive))
        return tuple(found)

    def crossing(self, cut: int) -> tuple[int, ...]:
        """Return the earlier values that operations from `cut` on read: the content of a message over this cut."""
        return self._crossings[cut]

    def crossing_features(self, cut: int) -> int:
        """Return the number of features in a message over this cut."""
        return sum(self.shapes[v].features for v in self.crossing(cut))

    def crossing_numbers(self, cut: int) -> int:
        """Return how many numbers such a message has for each sample."""
        return self.crossing_features(cut) * self.crossing_columns(cut)

    def crossing_columns(self, cut: int) -> int:
        """Return how many columns such a message has for each sample."""
        return self.shapes[self.crossing(cut)[0]].columns

    def gradients(self, cut: int) -> tuple[int, ...]:
        """Return the values of `crossing` whose gradients are sent back over this cut."""
        return tuple(v for v in self.crossing(cut) if self.needs_gradient[v])

    def gradient_numbers(self, cut: int) -> int:
        """Return how many numbers the message with these gradients has for each sample."""
        return sum(self.shapes[v].numbers for v in self.gradients(cut))

    @cached_property
    def ties(self) -> tuple[Tie, ...]:
        """Every use of a weight that another operation owns, in the order of the users."""
        return tuple(
            Tie(user=op, name=name, owner=owner, owner_name=f"{owner.name}.{parameter.name}", shape=spec.shape)
            for op in self.ops
            for name, spec in op.parameters
            if spec.tied_to is not None
            for owner, parameter in [owner_of(op, spec, self.ops)]
        )

    @cached_property
    def trained_ties(self) -> tuple[Tie, ...]:
        """The ties whose weight is trained: gradients and new values travel only for them."""
        return tuple(tie for tie in self.ties if tie.owner_name not in self.frozen)

    @cached_property
    def owners(self) -> dict[str, str]:
        """The owner's name of each tied weight, by the name at its use."""
        return {tie.name: tie.owner_name for tie in self.ties}

    def parameter_names(self) -> tuple[str, ...]:
        """Return the names of all parameters in layer order. A tied weight appears once, under its owner's name."""
        return tuple(own_names(self.ops))


def path_name(path: Path) -> str:
    """(4, 1) as `4.1`."""
    return ".".join(map(str, path))


def described(path: Path, inside: Sequence[str], kind: str) -> str:
    """Return the place of a layer in words: `transformer block 3, attention, linear`. `inside` names the entries around
    it; blocks count from 0, as in `path`."""
    parts = []
    for i, name in enumerate(inside):
        if KINDS[name].of_blocks:
            parts.append(f"{name} block {path[i + 1]}")
        elif not KINDS[name].groups_only:
            parts.append(name)
    return ", ".join([*parts, kind])


def name_order(name: str) -> tuple[tuple[int, ...], str]:
    """Return a sort key that puts names of parameters, such as `2.0.weight`, in layer order."""
    *path, last = name.split(".")
    return tuple(map(int, path)), last


class NetworkBuilder:
    """Appends entries to a list of operations. `branch_ends` are the operations that end a residual connection."""

    def __init__(self, shape: Shape) -> None:
        self.ops: list[Op] = []
        self.shapes = [shape]
        self.branch_ends: list[int] = []

    def add(self, spec: LayerSpec, path: Path, inside: tuple[str, ...], value: int) -> int:
        """Append the operations of `spec`, applied to `value`. Return the value that they give. Raises LayerError."""
        kind = KINDS[spec.kind]
        shape = self.shapes[value]
        try:
            if shape.vocabulary and kind.build is not None and not kind.takes_tokens:
                raise LayerProblem("its input consists of tokens; put embedding before it")
            if kind.build is not None:
                layer = kind.build(spec.options, shape, path)
                return self._append(Op(len(self.ops), path, kind.name, inside, layer, (value,)))
            assert kind.expand is not None, f"{kind.name} is neither built nor expanded"
            entries = kind.expand(spec.options, shape)
        except LayerProblem as problem:
            raise LayerError(path, inside, spec.kind, str(problem)) from None
        result = value
        for i, inner in enumerate(entries):
            result = self.add(inner, (*path, i), (*inside, kind.name), result)
        if not kind.adds_input:
            return result
        if self.shapes[result] != shape:
            raise LayerError(
                path,
                inside,
                spec.kind,
                f"its layers turn {shape} into {self.shapes[result]}; to be added, both need the same shape",
            )
        self.branch_ends.append(len(self.ops))
        return self._append(Op(len(self.ops), path, "add", inside, Add(shape), (result, value)))

    def check_ties(self) -> None:
        """Raise LayerError for a tied weight if its owner does not exist or has another shape."""
        for op in self.ops:
            for parameter in op.layer.parameters:
                if parameter.tied_to is not None:
                    owner_of(op, parameter, self.ops)

    def _append(self, op: Op) -> int:
        self.ops.append(op)
        self.shapes.append(op.layer.shape_out)
        return len(self.ops)


def own_names(ops: Sequence[Op]) -> list[str]:
    """Return the names of all parameters that the operations own, so without uses of tied weights."""
    return [name for op in ops for name, spec in op.parameters if spec.tied_to is None]


def named_by(path: str, names: Sequence[str]) -> list[str]:
    """Return the parameters that a path means: its own, `4.1.weight`, or all of a layer, `4.1` or `4`."""
    return [name for name in names if name == path or name.startswith(f"{path}.")]


def _is_trained(op: Op, ops: Sequence[Op], frozen: frozenset[str]) -> bool:
    for name, spec in op.parameters:
        owner = name if spec.tied_to is None else f"{owner_of(op, spec, ops)[0].name}.{spec.name}"
        if owner not in frozen:
            return True
    return False


def build_network(
    shape: Shape, layers: Sequence[LayerSpec], init: InitSpec | None = None, freeze: Sequence[str] = ()
) -> Network:
    """Return the network of these layers for an input of this shape, with the parameters that `freeze` names frozen.
    Raises LayerError."""
    builder, value = NetworkBuilder(shape), 0
    for i, spec in enumerate(layers):
        value = builder.add(spec, (i,), (), value)
    ops = builder.ops
    builder.check_ties()
    scaled = _scaled(ops, builder.branch_ends)
    gains = _following_gains(ops)
    names = own_names(ops)
    frozen = frozenset(name for path in freeze for name in named_by(path, names))
    complete = [
        replace(
            op,
            stds=tuple(_std(p, init, gains[op.index], scaled.get(op.index, 1.0)) for p in op.layer.parameters),
            trained=_is_trained(op, ops, frozen),
        )
        for op in ops
    ]
    return Network(tuple(complete), tuple(builder.shapes), frozen)


def _following_gains(ops: Sequence[Op]) -> list[float]:
    """Return for each operation the `weight_gain` of the next operation that is not transparent."""
    gains, gain = [1.0] * len(ops), 1.0
    for op in reversed(ops):
        gains[op.index] = gain
        if not op.layer.is_transparent:
            gain = op.layer.weight_gain
    return gains


def _scaled(ops: Sequence[Op], branch_ends: Sequence[int]) -> dict[int, float]:
    """Return 1 / √(number of branches) for the last operation with parameters of each residual branch."""
    found = {}
    for end in branch_ends:
        start = ops[end].inputs[1]
        inner = [k for k in range(start, end) if ops[k].layer.parameters]
        if inner:
            found[inner[-1]] = 1 / math.sqrt(len(branch_ends))
    return found


def _std(parameter: ParameterSpec, init: InitSpec | None, gain: float, scaled: float) -> float | None:
    draw = parameter.draw
    if draw is None:
        return None
    if draw.std is not None:
        return draw.std
    if init is not None:
        return init.std * (scaled if init.scale_residual else 1.0)
    return draw.default_std if draw.default_std is not None else math.sqrt(gain / draw.fan_in)


def owner_of(op: Op, parameter: ParameterSpec, ops: Sequence[Op]) -> tuple[Op, ParameterSpec]:
    """Return the operation and the parameter that own a tied weight. Raises LayerError."""
    owners = [
        (o, p)
        for o in ops
        if o.path == (parameter.tied_to,)
        for p in o.layer.parameters
        if p.name == parameter.name and p.tied_to is None
    ]
    where = f"tied_to: got {parameter.tied_to}"
    if not owners or owners[0][0].index >= op.index:
        raise LayerError(
            op.path, op.inside, op.kind, f"{where}, must be an earlier entry of model.layers that has a weight"
        )
    owner, spec = owners[0]
    if spec.shape != parameter.shape:
        theirs, ours = list(spec.shape), list(parameter.shape)
        raise LayerError(
            op.path, op.inside, op.kind, f"{where}, whose weight has the shape {theirs}, but this layer's has {ours}"
        )
    return owner, spec
