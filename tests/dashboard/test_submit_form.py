"""The job that the form of /submit describes, also with deep layers and text. No browser."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from nicegui import Client
from nicegui.page import page

from cluster.dashboard.pages.submit_page import _Form
from coordinator.job.spec import JobSpec, parse_job


def _described(fill: Callable[[_Form], None]) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    async def open_form() -> None:
        with Client(page("/")) as client:
            form = _Form()
            fill(form)
            found.append(form.document())
        client.delete()

    asyncio.run(open_form())
    return found[0]


def test_the_form_as_it_opens_is_a_job() -> None:
    spec = parse_job(_described(lambda form: None))
    assert [op.kind for op in spec.model_spec().network.ops] == ["linear", "relu", "linear", "relu", "linear"]


def test_deep_layers_with_options_and_text_are_a_job() -> None:
    """A comma inside brackets does not end a layer; text has a block in place of an input."""

    def fill(form: _Form) -> None:
        form._name.value, form._source.value, form._input.value, form._block.value = "gpt", "stdlib", "", 64
        form._layers.value = (
            "embedding: {units: 16}, positions, transformer: {heads: 2, times: 3, dropout: 0.1}, "
            "residual: [layer_norm, linear: {units: 16}], linear: {units: classes, tied_to: 0}"
        )
        form._optimizer.value, form._rate.value = "adamw", 1e-3

    spec: JobSpec = parse_job(_described(fill))
    assert [layer.kind for layer in spec.model.layers] == [
        "embedding",
        "positions",
        "transformer",
        "residual",
        "linear",
    ]
    assert (spec.data.source, spec.data.block, spec.model.input) == ("stdlib", 64, None)
    assert next(iter(spec.training.optimizer.document())) == "adamw"
    resolved = spec.resolved(64, 90)
    assert resolved.model_spec().network.output.features == 90


def test_classes_is_a_number_of_units() -> None:
    def fill(form: _Form) -> None:
        form._source.value, form._input.value, form._block.value = "stdlib", "", 8
        form._layers.value = "embedding: {units: 16}, classes"

    assert parse_job(_described(fill)).resolved(8, 7).model_spec().network.output.features == 7
