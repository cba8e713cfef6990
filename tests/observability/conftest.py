from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.recorded_jobs import classifier, train
from coordinator.job.spec import parse_job

RECOVERY: tuple[dict[str, Any], ...] = (
    {
        "time": "2026-01-02T03:04:05+00:00",
        "event": "worker lost",
        "worker": 1,
        "step": 14,
        "loss": "process lost",
        "cause": "worker 1 died",
        "found_s": 0.25,
        "wait_s": 0.0,
    },
    {
        "time": "2026-01-02T03:04:08+00:00",
        "event": "recovered",
        "workers": [],
        "from_step": 12,
        "steps_lost": 2,
        "replaced_s": 2.5,
        "first_step_s": 3.0,
    },
)
_SLOWEST_S = 400  # a Ray, four jobs and Prometheus, on a machine that may be busy


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_SLOWEST_S))


@pytest.fixture(scope="package")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a classifier of three stages with checkpoints, trained with threads as workers, and the
    events of a recovery, which threads never have."""
    folder = tmp_path_factory.mktemp("trained")
    spec = classifier(folder, stages=3)
    train(parse_job({**spec.document(), "checkpoint": {"every_steps": 3}}), folder / "run")
    with (folder / "run" / "events.jsonl").open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in RECOVERY)
    return folder / "run"
