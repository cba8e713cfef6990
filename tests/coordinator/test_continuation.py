"""A text continued with kept arrays of earlier tokens has the same numbers as the whole text computed at once."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.run.saved_model import FinishedRun, write_tensors
from coordinator.job.spec import JobSpec, parse_job
from coordinator.train.continuation import Continuation
from coordinator.train.inference import infer
from stages.arrays import Array
from stages.errors import InvalidData
from stages.stage import Stage

VOCABULARY, POSITIONS = 11, 9
TIED = {"linear": {"units": VOCABULARY, "tied_to": 0, "bias": False}}
BODIES: dict[str, list[Any]] = {
    "transformer": ["positions", {"transformer": {"heads": 3, "times": 2}}, "layer_norm"],
    "rotary, shared keys": [
        {"transformer": {"heads": 6, "kv_heads": 2, "times": 2, "rotary": True, "norm": "rms_norm"}}
    ],
    "swiglu, dropout": [{"transformer": {"heads": 2, "activation": "swiglu", "dropout": 0.3}}, "positions"],
    "no attention": ["positions", "gelu"],
    "attention alone": [{"attention": {"heads": 2}}],
}


def _job(body: list[Any], precision: str = "float64", units: int = 12, head: Any = TIED) -> JobSpec:
    return parse_job(
        {
            "seed": 3,
            "precision": precision,
            "model": {
                "input": [POSITIONS],
                "vocabulary": VOCABULARY,
                "loss": "cross_entropy",
                "init": {"std": 0.5},
                "layers": [{"embedding": {"units": units}}, *body, head],
            },
            "data": {"source": "stdlib", "block": POSITIONS},
            "training": {"steps": 1, "batch_size": 1, "optimizer": {"sgd": {"learning_rate": 0.1}}},
        }
    )


def _parameters(spec: JobSpec) -> dict[str, Array]:
    model = spec.model_spec()
    parameters = Stage(model, 0, len(model.network.ops), spec.optimizer()).parameters
    return parameters.named(parameters.values)


def _whole(spec: JobSpec, parameters: dict[str, Array], tokens: list[int]) -> Array:
    """Return the outputs at the last token, computed for the whole window at once."""
    seen = tokens[-POSITIONS:]
    window = np.zeros((1, POSITIONS), dtype=np.int64)
    window[0, : len(seen)] = seen
    (outputs,) = infer(spec.model_spec(), parameters.__getitem__, window, 1)
    return outputs[:, len(seen) - 1]


@pytest.mark.parametrize(("precision", "limit"), [("float32", 1e-5), ("float64", 1e-12)])
@pytest.mark.parametrize("name", BODIES)
def test_outputs_are_those_of_the_whole_text(name: str, precision: str, limit: float) -> None:
    """From one token to beyond the last position; then a prompt of several tokens; then another text."""
    spec = _job(BODIES[name], precision)
    parameters = _parameters(spec)
    row = Continuation(spec.model_spec(), parameters.__getitem__)
    tokens = np.random.default_rng(1).integers(0, VOCABULARY, 2 * POSITIONS).tolist()
    for text in [*(tokens[: n + 1] for n in range(len(tokens))), tokens[3:8], tokens[3:9], tokens[5:7], tokens[5:7]]:
        found, expected = row.outputs(text), _whole(spec, parameters, text)
        assert found.dtype == np.dtype(precision)
        np.testing.assert_allclose(found, expected, rtol=0, atol=limit * np.abs(expected).max())


def test_the_likeliest_text_is_the_same() -> None:
    spec = _job(BODIES["transformer"], "float32")
    parameters = _parameters(spec)
    row, continued, whole = Continuation(spec.model_spec(), parameters.__getitem__), [1], [1]
    for _ in range(3 * POSITIONS):
        continued.append(int(row.outputs(continued).argmax()))
        whole.append(int(_whole(spec, parameters, whole).argmax()))
    assert continued == whole
    assert len(set(continued)) > 2


def test_a_network_that_cannot_continue_a_text_says_which_layer_and_why() -> None:
    def told(spec: JobSpec) -> str:
        with pytest.raises(InvalidData) as refused:
            Continuation(spec.model_spec(), lambda name: np.empty(0))
        return str(refused.value)

    sees_all = _job([{"transformer": {"heads": 3, "causal": False}}])
    assert told(sees_all) == (
        "layer 1.0.0.1.1 (transformer block 0, attention, dot_product_attention): attention also uses "
        "the tokens after a position (causal: false), so "
        "the network cannot continue a text"
    )
    classifier = _job(["flatten"], head={"linear": {"units": 3}})
    assert "no output for each token" in told(classifier)


def test_one_layer_s_weights_are_held_at_a_time(tmp_path: Path) -> None:
    """Weights are read from the file as with `--low-memory`: 24 matrices of 640 KiB, of which one at a time is in
    memory, while keys, values and outputs are small."""
    spec = _job([{"transformer": {"heads": 2, "times": 4, "bias": False}}], "float32", units=200)
    parameters = _parameters(spec)
    write_tensors(tmp_path / "model.safetensors", parameters, {})
    run = FinishedRun(spec, tmp_path / "model.safetensors")
    largest = max(value.nbytes for value in parameters.values())
    assert sum(value.nbytes for value in parameters.values()) > 11 * largest
    del parameters
    row = Continuation(spec.model_spec(), run.parameter)
    tracemalloc.start()
    try:
        for n in range(1, 4):
            row.outputs([1, 2, 3][:n])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert largest < peak < 2.5 * largest
