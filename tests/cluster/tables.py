"""Jobs on small tables, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.data.sources import load_data
from cluster.data.tables.preprocessing import Preprocessing
from coordinator.job.spec import JobSpec, parse_job
from stages.errors import InvalidData


def table(folder: Path, text: str, name: str = "d.csv") -> Path:
    """Write a file, and return its path."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def table_job(source: Path, loss: Any = "cross_entropy", units: Any = "classes", **changes: Any) -> JobSpec:
    """Return a job of one layer; its shapes follow from the columns. `data` has more entries of that section."""
    model = {"layers": [{"linear": {"units": units}}], "loss": loss, **changes.pop("model", {})}
    return parse_job(
        {
            "seed": 7,
            "model": model,
            "data": {"source": str(source), **changes.pop("data", {})},
            "training": {"epochs": 1, "batch_size": 4, "optimizer": {"sgd": {"learning_rate": 0.1}}},
            **changes,
        }
    )


def problems_of(spec: JobSpec) -> list[str]:
    """Return the problems of a job's data, without the name of the source."""
    with pytest.raises(InvalidData) as caught:
        load_data(spec)
    return [line.removeprefix(f"{spec.data.source}: ") for line in caught.value.problems]


def rules_of(spec: JobSpec) -> Preprocessing:
    """Return the rules that are fitted to a job's training rows."""
    found = load_data(spec).preprocessing
    assert found is not None
    return found
