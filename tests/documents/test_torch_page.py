"""docs/torch.md: names and layers are those that there are, and its torch module loads a run's weights."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coordinator.job.spec import load_job
from stages.layers import KINDS
from tests.documents.shown import Command, shown
from tests.documents.visitor import ROOT, Visitor

pytestmark = pytest.mark.timeout(600)
PAGE = (ROOT / "docs" / "torch.md").read_text(encoding="utf-8")
BLOCKS, VOCABULARY = 4, 95


def _column(section: str, place: int) -> list[str]:
    """The cells of a column of the section's first table, without its heading."""
    text = PAGE.partition(f"## {section}\n")[2]
    rows = re.findall(r"^\|(.*)\|$", text.partition("|---")[2].partition("\n")[2].partition("\n\n")[0], re.MULTILINE)
    return [re.split(r"(?<!\\)\|", row)[place].strip() for row in rows]


def test_the_names_and_shapes_are_those_of_the_example() -> None:
    network = load_job(ROOT / "examples" / "char-gpt.yaml").resolved(64, VOCABULARY).model_spec().network
    expected = {name: p.shape for op in network.ops for name, p in op.parameters if p.tied_to is None}
    told = {}
    for name, shape in zip(_column("A transformer", 0), _column("A transformer", 1), strict=True):
        numbers = tuple(int(n) for n in shape.replace("vocabulary", str(VOCABULARY)).split(" × "))
        for block in range(BLOCKS):
            told[name.strip("`").replace("B", str(block))] = numbers
    assert told == expected


def test_every_layer_stands_beside_torch_s() -> None:
    told = [name for cell in _column("Layers", 0) for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(told) == sorted(KINDS)


def test_what_the_page_shows_happens(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed (pip install 'pipetrain[benchmark]')")
    visitor = Visitor(tmp_path)
    steps = list(shown(PAGE))
    assert sum(isinstance(step, Command) for step in steps) == 5
    for step in steps:
        visitor.does(step, "docs/torch.md")
    assert visitor.left_behind() == []
