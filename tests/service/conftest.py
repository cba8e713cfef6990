from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.service.running import SMALL, Service

_SLOWEST_S = 400  # a Ray and several processes for each test, on a machine that may be busy


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_SLOWEST_S))


MOST_QUEUED = 60
"""The jobs that may wait in the service of the session."""

JobMaker = Callable[..., dict[str, Any]]


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service with two workers for the whole session. Tests that kill or fill a service use their own."""
    running = Service(tmp_path_factory.mktemp("service") / "home", "--workers", "2", "--max-queued", str(MOST_QUEUED))
    running.up()
    yield running
    running.down()


@pytest.fixture(scope="package")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with 200 rows of four numbers and one to predict."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 4))
    file = tmp_path_factory.mktemp("data") / "rows.npz"
    np.savez(file, x=x, y=np.sin(x).sum(axis=1, keepdims=True))
    return file


@pytest.fixture(scope="package")
def small(data: Path) -> JobMaker:
    """Return the document of a small job: `epochs` of ten steps, and `a__b=c` for any other entry."""

    def make(epochs: int = 3, **changes: Any) -> dict[str, Any]:
        document = {key: dict(value) if isinstance(value, dict) else value for key, value in SMALL.items()}
        document["data"]["source"] = str(data)
        document["training"]["epochs"] = epochs
        for path, value in changes.items():
            *sections, last = path.split("__")
            place = document
            for section in sections:
                place = place.setdefault(section, {})
            place[last] = value
        return document

    return make
