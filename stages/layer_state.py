"""All that the stages of a worker must remember, by layer, so that another worker with other stages can go on.

[Note: what a run must remember] A layer's state is its parameters and, for each of them that is trained, the
optimizer's vectors. All else follows from the seed and the number of updates made: order of rows, masks of dropout,
learning rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stages.arrays import Array
from stages.orders import Part
from stages.snapshots import LayerState, Read
from stages.stage import Stage


def layer_states(stages: Iterable[Stage]) -> Mapping[str, LayerState]:
    """Return views of all that the stages must remember, by layer."""
    found: dict[str, dict[str, Array]] = {}
    for stage in stages:
        values = stage.parameters.views(stage.parameters.values)
        vectors = {name: stage.parameters.views(vector) for name, vector in stage.optimizer.state.items()}
        for name, value in values.items():
            layer, _, _ = name.rpartition(".")
            own = found.setdefault(layer, {})
            own[name] = value
            own |= {f"{name}.{vector}": views[name] for vector, views in vectors.items() if name in views}
    return found


def restore(stages: Iterable[Stage], read: Read) -> None:
    """Fill every array of the stages with `read(layer, name, out)`, and the copies of tied weights."""
    for stage in stages:
        for layer, arrays in layer_states([stage]).items():
            for name, array in arrays.items():
                read(layer, name, array)
        stage.uses.fill(lambda name, out: read(name.rpartition(".")[0], name, out))


def gathered(stages: Iterable[Stage], part: Part) -> dict[str, Array]:
    """Return views, not copies: a copy might not fit beside the stage. They are sent before anything changes them."""
    found: dict[str, Array] = {}
    for stage in stages:
        p = stage.parameters
        found.update(p.views(p.values if part == "parameters" else p.gradients))
    return found
