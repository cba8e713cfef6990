from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.plan.memory import predict_stage
from stages.actions import Action, Kind
from stages.spec import ModelSpec, SgdSpec
from stages.stage import Stage
from tests.stages.flat import flat_layer


@settings(max_examples=150, deadline=None)
@given(
    kinds=st.text("LLrktsgGf", min_size=1, max_size=6),
    cut=st.integers(0, 5),
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    group=st.integers(1, 3),
    delay=st.integers(0, 3),
    split=st.booleans(),
)
def test_prediction_is_what_the_stage_then_holds(
    kinds: str, cut: int, sizes: list[int], group: int, delay: int, split: bool
) -> None:
    """The prediction without arrays and the stage with arrays agree to the byte, for any order of actions."""
    layers = tuple(flat_layer(c, 3 + i) for i, c in enumerate(kinds))
    model = ModelSpec(input_shape=(4,), layers=layers, loss="mse")
    first = min(cut, len(kinds) - 1)
    bounds, s = ((0, first, len(kinds)), 1) if first else ((0, len(kinds)), 0)
    lane, m = [], len(sizes)
    for t in range(m + delay):
        if t < m:
            lane.append(Action(s, Kind.FORWARD, t))
        if t >= delay:
            lane.append(Action(s, Kind.BACKWARD_INPUT if split else Kind.BACKWARD, t - delay))
    lane += [Action(s, Kind.BACKWARD_WEIGHT, j) for j in range(m) if split]

    sgd = SgdSpec(learning_rate=0.1, momentum=0.9)
    predicted = predict_stage(model, bounds, s, sgd, tuple(lane), sizes, group)
    stage = Stage(model, bounds[s], bounds[s + 1], sgd, weight_grad_group=group)
    stage.begin_step(m)
    for action in lane:
        rows = sizes[action.micro_batch]
        if action.kind is Kind.FORWARD:
            stage.forward(action.micro_batch, np.ones((stage.n_in, rows), np.float32))
        if action.kind in (Kind.BACKWARD, Kind.BACKWARD_INPUT):
            stage.backward_input(action.micro_batch, np.ones((stage.n_out, rows), np.float32))
        if action.kind in (Kind.BACKWARD, Kind.BACKWARD_WEIGHT):
            stage.backward_weight(action.micro_batch)
    assert predicted.saved == stage.peak_saved_bytes
    assert predicted.pool == stage.buffers.held_bytes
    assert predicted.weights == stage.parameters.values.nbytes
    assert predicted.optimizer == stage.optimizer.nbytes
