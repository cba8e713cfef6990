from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.recorded_jobs import classifier, train

_SLOWEST_S = 400  # a Ray, four jobs and Prometheus, on a machine that may be busy


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_SLOWEST_S))


@pytest.fixture(scope="package")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a classifier of three stages, trained with threads as workers."""
    folder = tmp_path_factory.mktemp("trained")
    train(classifier(folder, stages=3), folder / "run")
    return folder / "run"
