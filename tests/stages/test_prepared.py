"""Steps that make prepared calls give the same bits as steps that do not, with as much memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import stages.prepared
from stages.layers import LayerSpec, entry
from stages.spec import ModelSpec, SgdSpec
from stages.stage import Stage
from tests.stages.flat import flat_layer

_SGD = SgdSpec(learning_rate=0.1, momentum=0.9)
_DEEP = (
    entry("linear", units=6),
    entry("residual", layers=(entry("layer_norm"), entry("linear", units=6), entry("gelu"))),
    entry("rms_norm"),
    entry("linear", units=5, bias=False),
)
_FLAT = tuple(flat_layer(letter, 6) for letter in "LrLrLtL")
_ORDERS = [
    "F0 F1 F2 I0 I1 I2 W0 W1 W2",
    "F0 I0 W0 F1 I1 W1 F2 I2 W2",
    "F0 F1 I0 F2 I1 I2 W2 W0 W1",
]


def _stage(layers: Sequence[LayerSpec], group: int = 1) -> Stage:
    model = ModelSpec(input_shape=(4,), layers=tuple(layers), loss="mse", precision="float32", seed=3)
    return Stage(model, 0, len(model.network.ops), _SGD, weight_grad_group=group)


def _step(stage: Stage, step: int, order: str, rows: Sequence[int], *, alike: bool, look: bool = False) -> bytes:
    """Train a step; return the bits of all results, gradients and weights."""
    rng, bits = np.random.default_rng(step), b""
    stage.begin_step(len(rows), alike=alike)
    messages = [
        (rng.standard_normal((n, 4), np.float32).T, rng.standard_normal((stage.n_out, n), np.float32)) for n in rows
    ]
    for action in order.split():
        j = int(action[1:])
        if action[0] == "F":
            bits += stage.forward(j, messages[j][0], look=look).tobytes()
        elif action[0] == "I":
            bits += stage.backward_input(j, messages[j][1]).tobytes()
        else:
            stage.backward_weight(j)
    bits += stage.parameters.gradients.tobytes()
    stage.update(step, 0.1)
    return bits + stage.parameters.values.tobytes()


@pytest.mark.parametrize("layers", [_FLAT, _DEEP], ids=["flat", "deep"])
@pytest.mark.parametrize("order", _ORDERS)
def test_prepared_steps_have_the_bits_and_the_memory_of_plain_ones(layers: Sequence[LayerSpec], order: str) -> None:
    """Also if other steps come between them: one that looks for dead units, an evaluation, one of other sizes, one that
    is given up."""
    plain, prepared = _stage(layers), _stage(layers)
    used = 0
    for step in range(1, 16):
        rows, look = [3, 3, 2] if step != 8 else [1, 1, 1], step in (5, 13)
        if step in (8, 9):
            plain.trim()
            prepared.trim()
        if step == 13:
            prepared.begin_step(3, alike=True)
            prepared.forward(0, np.ones((4, 3), np.float32))
            assert prepared._prepared.used is not None
            prepared.discard()
        ours = _step(prepared, step, order, rows, alike=not look, look=look)
        assert ours == _step(plain, step, order, rows, alike=False, look=look), f"step {step}"
        assert prepared.buffers.held_bytes == plain.buffers.held_bytes
        assert prepared.buffers.lent_bytes == plain.buffers.lent_bytes == 0
        assert prepared.peak_saved_bytes == plain.peak_saved_bytes
        used += prepared._prepared.used is not None
        if step == 6:
            x = np.ones((4, 50), np.float32)
            assert prepared.infer(x).tobytes() == plain.infer(x).tobytes()
    assert used == 4 + 2, (
        "steps 3, 4, 6, 7 and 11, 12; then the second step after the one that was given up is recorded"
    )


def test_a_step_that_is_given_up_while_it_is_recorded_gives_its_arrays_back() -> None:
    stage = _stage(_FLAT)
    _step(stage, 1, _ORDERS[0], [2, 2, 2], alike=True)
    held = stage.buffers.held_bytes
    stage.begin_step(3, alike=True)
    stage.forward(0, np.ones((4, 2), np.float32))
    stage.discard()
    assert (stage.buffers.lent_bytes, stage.buffers.held_bytes) == (0, held)


def test_layers_that_draw_and_groups_of_weight_gradients_are_never_prepared() -> None:
    """The numbers that dropout draws depend on the step."""
    for stage in (_stage((*_FLAT, entry("dropout", rate=0.5))), _stage(_FLAT, group=2)):
        results = {_step(stage, 1, _ORDERS[0], [2, 2, 2], alike=True) for _ in range(4)}
        assert stage._prepared.used is None
        assert len(results) == 4


def test_very_many_calls_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages.prepared, "_MOST_CALLS", 20)
    stage, plain = _stage(_FLAT), _stage(_FLAT)
    for step in range(1, 6):
        assert _step(stage, step, _ORDERS[1], [2, 2, 2], alike=True) == _step(
            plain, step, _ORDERS[1], [2, 2, 2], alike=False
        )
        assert stage._prepared.used is None
        assert stage.buffers.lent_bytes == 0
