from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.client import Job
from cluster.service.home import Home
from tests.dashboard.browser import MISSING, Browser
from tests.service.running import Service, in_background, until

_SLOWEST_S = 300  # Ray and a browser start, on a machine that may be busy


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = [i for i, item in enumerate(items) if Path(__file__).parent in item.path.parents]
    ours = [items[i] for i in places]
    for item in ours:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_SLOWEST_S))
    # the job `endless` keeps a core busy that is idle: tests without it run first, faster
    ours.sort(key=lambda item: "endless" in getattr(item, "fixturenames", ()))
    for i, item in zip(places, ours, strict=True):
        items[i] = item


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service with three workers for all tests of the pages."""
    running = Service(tmp_path_factory.mktemp("dashboard") / "home", "--workers", "3")
    running.up()
    yield running
    running.down()


@pytest.fixture(scope="package")
def address(service: Service) -> str:
    """Host and port of the service's pages."""
    found = Home.read(service.home.service_file)
    assert found is not None, "no service is up"
    return str(found["http"])


@pytest.fixture(scope="package")
def browser_of_session(request: pytest.FixtureRequest) -> Iterator[Browser]:
    if MISSING:
        pytest.skip(f"{' and '.join(MISSING)} not found: apt-get install chromium chromium-driver")
    found = Browser(request.getfixturevalue("address"))
    yield found
    found.close()


@pytest.fixture
def browser(browser_of_session: Browser) -> Iterator[Browser]:
    """The browser. After each test, its console must have no errors, and it must not have sent requests to other
    hosts."""
    browser_of_session.forget()
    yield browser_of_session
    assert browser_of_session.console_errors() == []
    assert browser_of_session.hosts() <= {browser_of_session.address}


@pytest.fixture(scope="package")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with 2,000 rows of sixteen inputs and one target."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2000, 16))
    file = tmp_path_factory.mktemp("data") / "rows.npz"
    np.savez(file, x=x, y=np.sin(x).sum(axis=1, keepdims=True))
    return file


@pytest.fixture(scope="package")
def document(rows: Path) -> dict[str, Any]:
    """A job of two stages and six micro-batches that would train for hours."""
    return {
        "name": "endless",
        "model": {
            "input": [16],
            "layers": [{"linear": {"units": 64}}, "tanh", {"linear": {"units": 64}}, "tanh", {"linear": {"units": 1}}],
            "loss": "mse",
        },
        "data": {"source": str(rows)},
        "training": {
            "epochs": 100_000,
            "batch_size": 200,
            "micro_batches": 6,
            "optimizer": {"sgd": {"learning_rate": 0.02}},
        },
        "pipeline": {"stages": 2},
    }


@pytest.fixture(scope="package")
def endless(service: Service, document: dict[str, Any]) -> Job:
    """The job of `document`, running in the background. It continues after a restart of the service."""
    return in_background(until(service.client.submit(document), "RUNNING"))
