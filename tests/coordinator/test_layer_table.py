"""The table of a job's layers: its sums are the plan's, and folding loses nothing."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.job.spec import parse_job
from coordinator.plan.blueprint import make_blueprint
from coordinator.plan.estimate import estimate
from coordinator.plan.layer_table import LayerRow, folded, layer_rows

VOCABULARY, TOKENS = 11, 6


def _rows(stages: int = 1, blocks: int = 3, **pipeline: Any) -> tuple[tuple[LayerRow, ...], Any]:
    document = {
        "name": "deep",
        "model": {
            "input": [TOKENS],
            "vocabulary": VOCABULARY,
            "layers": [
                {"embedding": {"units": 4}},
                {"transformer": {"heads": 2, "times": blocks, "bias": False}},
                {"repeat": {"times": 2, "layers": [{"residual": {"layers": ["tanh"]}}]}},
                {"linear": {"units": VOCABULARY, "tied_to": 0}},
            ],
            "loss": "cross_entropy",
        },
        "data": {"source": "stdlib", "block": TOKENS},
        "training": {"steps": 1, "batch_size": 6, "micro_batches": 3, "optimizer": {"sgd": {"learning_rate": 0.1}}},
        "pipeline": {"stages": stages, **pipeline},
    }
    blueprint = make_blueprint(parse_job(document).resolved(TOKENS, VOCABULARY), 6)
    return layer_rows(blueprint), estimate(blueprint, data_bytes=0, validation_rows=1)


@pytest.mark.parametrize("stages", [1, 2, 5])
@pytest.mark.parametrize("recompute", ["none", "full"])
def test_the_sums_of_the_rows_are_those_of_the_stages(stages: int, recompute: str) -> None:
    rows, plan = _rows(stages, schedule="gpipe", recompute=recompute)
    for stage in plan.stages:
        own = [row for row in rows if row.stage == stage.stage]
        assert [row.number for row in own] == list(stage.layers)
        assert sum(row.parameters for row in own) == stage.parameters
        assert sum(row.flops for row in own) == stage.flops
        taken_in = stage.memory.saved - 3 * sum(
            row.kept_bytes for row in own
        )  # the stage's input belongs to no operation
        assert taken_in >= 0
        if recompute == "none" and stages == 1:
            assert taken_in == 3 * 2 * TOKENS * 4, "three micro-batches of two rows of tokens"


def test_alike_blocks_are_one_and_counted() -> None:
    rows, _ = _rows()
    short = folded(rows)
    kinds = "layer_norm linear dot_product_attention linear add layer_norm linear gelu linear add"
    assert [(row.kind, row.times) for row in short] == [
        ("embedding", 1),
        *((kind, 3) for kind in kinds.split()),
        ("tanh", 2),
        ("add", 2),
        ("linear", 1),
    ]
    for whole in ("parameters", "flops"):
        assert sum(getattr(row, whole) * row.times for row in short) == sum(getattr(row, whole) for row in rows)


def test_blocks_that_differ_stay_apart() -> None:
    rows, _ = _rows(blocks=1)
    assert max(row.times for row in folded(rows)[:11]) == 1
    flat = tuple(row for row in rows if len(row.path) == 1)
    assert folded(flat) == flat


def test_of_bytes_kept_a_folded_row_has_the_most() -> None:
    rows, _ = _rows(stages=5)
    for row in folded(rows):
        alike = [other for other in rows if (other.kind, other.path[2:]) == (row.kind, row.path[2:])]
        assert row.kept_bytes in {other.kept_bytes for other in alike}
    attention = [row.kept_bytes for row in rows if row.kind == "dot_product_attention"]
    assert next(row.kept_bytes for row in folded(rows) if row.kind == "dot_product_attention") == max(attention)
