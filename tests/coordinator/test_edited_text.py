"""Changes in the text of a job file: comments stay, and what is read back is what was wanted."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.job.edited_text import edited
from coordinator.job.yaml_text import read_yaml
from tests.jobs import EXAMPLES

TEXT = """\
# Größe: ein Kommentar
model: {input: [4], layers: [linear: {units: 2}], loss: mse}
training:
  batch_size: 8        # rows
  micro_batches: 2     # parts
pipeline: {stages: 1, schedule: gpipe}  # one process
"""


def test_values_are_replaced_and_added_and_comments_stay() -> None:
    found = edited(TEXT, {"training.micro_batches": 4, "pipeline.schedule": "zb-h1", "pipeline.partition": [2, 3]})
    assert found == TEXT.replace("micro_batches: 2 ", "micro_batches: 4 ").replace(
        "schedule: gpipe}", "schedule: zb-h1, partition: [2, 3]}"
    )


@pytest.mark.parametrize(
    ("pipeline", "expected"),
    [
        ("pipeline: auto # chosen", "pipeline: {stages: 2, workers: null} # chosen"),
        ("pipeline:\n    stages: 4   # four", "pipeline:\n    stages: 2   # four\n    workers: null"),
        ("pipeline:\n  recompute: [0]", "pipeline:\n  recompute: [0]\n  stages: 2\n  workers: null"),
        ("name: x", "name: x\npipeline:\n  stages: 2\n  workers: null\n"),
    ],
)
def test_sections_of_every_form_are_changed(pipeline: str, expected: str) -> None:
    assert edited(pipeline, {"pipeline.stages": 2, "pipeline.workers": None}) == expected


@pytest.mark.parametrize(
    "text",
    [
        "{pipeline: {stages: 1}}",  # JSON, or a mapping in one line
        "pipeline:\n  partition:\n    - 1\n    - 2\n",  # a list over several lines comes last
        "pipeline:\n",
        "- 1",
        "a: [",
        "",
    ],
)
def test_what_is_not_simple_is_left_to_the_caller(text: str) -> None:
    assert edited(text, {"pipeline.partition": [3]}) is None


def test_the_examples_are_changed_as_wanted() -> None:
    entries: dict[str, Any] = {
        "pipeline.stages": 3,
        "pipeline.workers": 2,
        "pipeline.schedule": "interleaved-1f1b",
        "pipeline.weight_grad_group": 4,
        "training.micro_batches": 16,
    }
    for path in sorted(EXAMPLES.glob("*.yaml")):
        before, _ = read_yaml(path.read_text(encoding="utf-8"))
        text = edited(path.read_text(encoding="utf-8"), entries)
        assert text is not None, path
        after, problems = read_yaml(text)
        assert isinstance(before, dict)
        assert isinstance(after, dict)
        assert problems == []
        for section in ("training", "pipeline"):
            own = {key.partition(".")[2]: value for key, value in entries.items() if key.startswith(section)}
            assert after.pop(section) == {**(before.pop(section, None) or {}), **own}, path
        assert after == before
