"""A stage as lists of steps. The worker runs these lists; memory prediction and traces read them.

[Note: compiled stages] Between F, I and W of a micro-batch a stage keeps arrays in numbered slots. `compile_stage`
works in two passes. First it lists which operation reads and writes which value, gradient and extra array in F, I and
W; each array has a name of its own. Then the last reader of each name is known, and names are assigned to slots: a
step that can write over its input does so if no later step reads that input, and a slot becomes free after its last
reader.

    linear, relu, linear    F    take 1: linear 0 → 1    relu 1 → 1    take 2: linear 1 → 2    give 2
                            I    linear 4 → 5    relu 5 → 5 …
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from stages.layers.base import Layer
from stages.network import Network, Op
from stages.steps import Buffer, Do, Event, Slots, Step, allocate


@dataclass(frozen=True)
class Compiled:
    """The lists of steps of one stage. `buffers[slot]` describes the array in a slot of F, I and W.

    `forward` keeps `kept` slots; `backward_input` frees some and keeps those that `backward_weight` reads.
    """

    network: Network
    first: int
    last: int
    recompute: bool
    buffers: tuple[Buffer, ...]
    forward: tuple[Step, ...]
    backward_input: tuple[Step, ...]
    backward_weight: tuple[Step, ...]
    kept: frozenset[int]
    kept_for_weight: frozenset[int]
    """The slots of `kept` that stay in use until W."""
    gradients: tuple[int, ...]
    """Slots that I takes and that stay in use until W."""

    def numbers(self, slots: Iterable[int]) -> int:
        """Return how many numbers these slots hold for each row."""
        return sum(self.buffers[s].numbers for s in slots)

    @cached_property
    def backward(self) -> tuple[Step, ...]:
        """I and W in one list: both of one operation before those of the next."""
        return self._together.lists[1]

    @cached_property
    def infer(self) -> tuple[Step, ...]:
        """A forward pass that keeps nothing. Its slots are numbered separately."""
        return self._alone.lists[0]

    @property
    def sizes_together(self) -> tuple[Buffer, ...]:
        """The sizes of the slots of `backward`."""
        return self._together.buffers

    @property
    def sizes_to_infer(self) -> tuple[Buffer, ...]:
        """The sizes of the slots of `infer`."""
        return self._alone.buffers

    @property
    def n_slots(self) -> int:
        """The number of slots that is enough for each of the lists."""
        return max(len(self.buffers), len(self._together.buffers), len(self._alone.buffers))

    @cached_property
    def _together(self) -> Slots:
        names = _Names(self.network)
        forward = _whole_forward(names, self.first, self.last)
        _, together = _backward(names, self.first, self.last, recompute=self.recompute)
        slots = allocate(names.buffers, [forward, together])
        assert slots.lists[0] == self.forward, "forward does not depend on the order of what follows"
        return slots

    @cached_property
    def _alone(self) -> Slots:
        names = _Names(self.network)
        return allocate(names.buffers, [_whole_forward(names, self.first, self.last)])


@dataclass(slots=True)
class _Names:
    """Names of arrays. `buffers[name]` describes the array; `value[v]` is the present name of value v."""

    network: Network
    buffers: list[Buffer] = field(default_factory=list)
    value: dict[int, int] = field(default_factory=dict)
    extras: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def new(self, features: int, columns: int) -> int:
        self.buffers.append(Buffer(features, columns))
        return len(self.buffers) - 1

    def of_value(self, v: int) -> int:
        shape = self.network.shapes[v]
        return self.new(shape.features, shape.columns)

    def scratch(self, layer: Layer, half: int) -> tuple[int, ...]:
        """Return a new name for the work space of this pass of the layer, if it needs any."""
        numbers = layer.scratch[half]
        return (self.new(numbers, layer.shape_in.columns),) if numbers else ()


def compile_stage(network: Network, first: int, last: int, *, recompute: bool = False) -> Compiled:
    """Compile operations `first` … `last` − 1. With `recompute`, F keeps only the inputs of segments (see `segments`),
    and I runs forward again."""
    names = _Names(network)
    forward = _whole_forward(names, first, last)
    apart, _ = _backward(names, first, last, recompute=recompute)
    slots = allocate(names.buffers, [forward, *apart])
    kept, after_input = slots.held[0], slots.held[1]
    return Compiled(
        network=network,
        first=first,
        last=last,
        recompute=recompute,
        buffers=slots.buffers,
        forward=slots.lists[0],
        backward_input=slots.lists[1],
        backward_weight=slots.lists[2],
        kept=kept,
        kept_for_weight=kept & after_input,
        gradients=tuple(sorted(after_input - kept)),
    )


def segments(network: Network, first: int, last: int) -> list[tuple[int, int]]:
    """Return the parts of a stage that are run forward again one at a time. Each ends after a residual connection that
    is inside no other; a stage without residual connections is one segment."""
    ends = [
        k for k in range(first + 1, last) if network.ops[k - 1].layer.n_inputs > 1 and len(network.crossing(k)) == 1
    ]
    edges = [first, *ends, last]
    return list(pairwise(edges))


def _take_in(names: _Names, first: int) -> list[Event]:
    found = []
    for v in names.network.crossing(first):
        names.value[v] = names.of_value(v)
        found.append(names.value[v])
    return [Event(Do.UNPACK, None, others=tuple(found), writes=tuple(found))]


def _pack(names: _Names, wanted: Sequence[int]) -> Event:
    """The last event of F or I: gather the values to be sent into one array."""
    if len(wanted) == 1:
        return Event(Do.PACK, None, y=wanted[0], others=tuple(wanted))
    features = sum(names.buffers[n].features for n in wanted)
    packed = names.new(features, names.buffers[wanted[0]].columns)
    return Event(Do.PACK, None, y=packed, others=tuple(wanted), writes=(packed,))


def _whole_forward(names: _Names, first: int, last: int) -> list[Event]:
    """F, from unpacking the message that arrives to packing the one that is sent."""
    taken = _take_in(names, first)
    events = _forward(names, first, last)
    return [*taken, *events, _pack(names, [names.value[v] for v in names.network.crossing(last)])]


def _forward(names: _Names, first: int, last: int) -> list[Event]:
    events = []
    for op in names.network.ops[first:last]:
        layer, result = op.layer, op.index + 1
        x, *others = (names.value[v] for v in op.inputs)
        if layer.is_identity:
            names.value[result] = x
            continue
        y = names.of_value(result)
        columns = layer.shape_in.columns
        extras = tuple(names.new(extra.features, columns) for extra in layer.extras)
        names.value[result], names.extras[op.index] = y, extras
        extras += names.scratch(layer, 0)
        shares = tuple((y, n) for n in (x, *others)) if layer.in_place else ()
        events.append(
            Event(Do.FORWARD, op, x=x, y=y, extras=extras, others=tuple(others), writes=(y, *extras), shares=shares)
        )
    return events


def _backward(
    names: _Names, first: int, last: int, *, recompute: bool
) -> tuple[tuple[list[Event], list[Event]], list[Event]]:
    """Return I and W as two lists, and both together in one list."""
    pieces = segments(names.network, first, last) if recompute else []
    network, inputs, weights, together = names.network, list[Event](), list[Event](), list[Event]()
    gradient = {v: names.of_value(v) for v in network.gradients(last)}
    if gradient:
        came = tuple(gradient.values())
        inputs.append(Event(Do.UNPACK, None, others=came, writes=came))
    together += inputs
    for begin, end in reversed(pieces or [(first, last)]):
        if pieces:
            again = _forward(names, begin, end)
            inputs += again
            together += again
        for op in reversed(network.ops[begin:end]):
            if network.needs_gradient[op.index + 1]:
                weight, input_events = _backward_of(names, op, gradient)
                weights += weight
                together += [*weight, *input_events]
                inputs += input_events
    lowest = weights[-1].dy if weights else -1
    sent = [gradient[v] for v in network.gradients(first)] or ([lowest] if lowest >= 0 else [])
    if sent:
        packed = _pack(names, sent)
        inputs.append(packed)
        together.append(packed)
    return (_without_unread(inputs, weights), weights), _without_unread(together, [])


def _backward_of(names: _Names, op: Op, gradient: dict[int, int]) -> tuple[list[Event], list[Event]]:
    """Return the events (W, I) of one operation. `gradient` maps each value above it to the name of its ∂ℓ/∂value."""
    layer, dy, weight, events = op.layer, gradient.pop(op.index + 1), list[Event](), list[Event]()
    x, y, extras = names.value[op.inputs[0]], names.value[op.index + 1], names.extras.get(op.index, ())
    if op.trained:
        reads = layer.weight_gradient_reads
        weight.append(
            Event(
                Do.WEIGHT_GRADIENT,
                op,
                x=x if "x" in reads else -1,
                extras=tuple(n for n, extra in zip(extras, layer.extras, strict=True) if extra.until_weight),
                dy=dy if "dy" in reads else -1,
            )
        )
    for v in op.inputs:
        if not names.network.needs_gradient[v]:
            continue
        dx = dy
        if not (layer.is_identity or layer.passes_gradient):
            dx, reads = names.of_value(v), layer.input_gradient_reads
            scratch = names.scratch(layer, 1)
            events.append(
                Event(
                    Do.INPUT_GRADIENT,
                    op,
                    x=x if "x" in reads else -1,
                    y=y if "y" in reads else -1,
                    extras=(*extras, *scratch),
                    dy=dy,
                    dx=dx,
                    writes=(dx, *scratch),
                    shares=((dx, dy),) if layer.in_place else (),
                )
            )
        if v in gradient:
            total = names.of_value(v)
            events.append(
                Event(
                    Do.SUM,
                    None,
                    x=gradient[v],
                    y=dx,
                    dx=total,
                    writes=(total,),
                    shares=((total, dx), (total, gradient[v])),
                )
            )
            dx = total
        gradient[v] = dx
    return weight, events


def _without_unread(events: Sequence[Event], later: Sequence[Event]) -> list[Event]:
    """Leave out repeated forward steps whose results no later step reads."""
    read = {n for event in later for n in event.reads}
    kept = []
    for event in reversed(events):
        if event.do is Do.FORWARD and not read.intersection(event.writes):
            continue
        read.update(event.reads)
        kept.append(event)
    return kept[::-1]
