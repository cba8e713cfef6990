from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from cluster.actors.ray_session import ray_session

# the same examples every time, so that a red run means a change; EXPLORE=1 looks for new ones; a slow run is none
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("explore" if os.environ.get("EXPLORE") else "steady")

STARTS_RAY = (
    "tests/cluster/test_ray_",
    "tests/cluster/test_two_nodes.py",
    "tests/dashboard/test_api.py",
    "tests/dashboard/test_pages.py",
    "tests/documents/",
    "tests/e2e/test_train_command.py",
    "tests/faults/",
    "tests/observability/test_prometheus.py",
    "tests/service/",
)
"""What starts Ray, or a service with it: one after the other in one process, because they share what they start."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the soaks too: tests that are marked slow")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        slow = [item for item in items if item.get_closest_marker("slow") is not None]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]
    if hasattr(config, "workerinput"):  # one of several processes: the longest part begins first
        items.sort(key=lambda item: not item.nodeid.startswith(STARTS_RAY))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n 2`: what starts Ray is for one process, and the other takes the files that do not, meanwhile."""
    from xdist.scheduler.loadscope import LoadScopeScheduling

    config.option.loadscopereorder = False  # else files of many tests would begin before Ray's

    class RayInOneProcess(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return "ray" if nodeid.startswith(STARTS_RAY) else nodeid.partition("::")[0]

    return RayInOneProcess(config, log)


@pytest.fixture(scope="session")
def ray() -> Iterator[Any]:
    """One embedded Ray cluster for the whole session."""
    with ray_session(None, cpus=5, memory=4 * 2**30) as module:
        yield module
