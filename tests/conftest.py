from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from cluster.actors.ray_session import ray_session
from tests.examples import EXPLORES, take_all

# the same examples every time, so that a red run means a change; EXPLORE=1 looks for new ones; no deadline, because a
# slow example is no failure
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("explore" if EXPLORES else "steady")

STARTS_RAY: tuple[tuple[str | tuple[str, ...], str], ...] = (
    ("tests/cluster/test_ray_", "ray"),  # first: Ray cannot be started in a process that imported it before
    ("tests/faults/", "ray"),
    ("tests/cluster/test_runner_logs.py", "ray"),
    # then the longest from both ends to the middle, so that at the end neither process waits long for the other
    ("tests/documents/", ""),
    ("tests/dashboard/", "pages"),
    (tuple(f"tests/service/test_{letter}" for letter in "abcdefghi"), "service"),
    ("tests/cluster/test_cut_cable.py", ""),
    ("tests/cluster/test_elastic.py", ""),
    ("tests/cluster/test_two_nodes.py", ""),
    ("tests/observability/test_prometheus.py", ""),
    ("tests/service/test_ray_killed.py", ""),
    ("tests/service/test_service_killed.py", ""),
    ("tests/e2e/test_train_command.py", ""),
    ("tests/service/", "the other half of service"),
)
"""Beginnings of the paths of tests that start Ray, or a service with it. Files with the same word share what they
start, and stay together in one process."""


def _place(nodeid: str) -> int:
    """Return the place of a test in STARTS_RAY; tests that do not start Ray come after all of them."""
    return next((place for place, (start, _) in enumerate(STARTS_RAY) if nodeid.startswith(start)), len(STARTS_RAY))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the soaks too: tests that are marked slow")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--slow"):
        take_all()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        slow = [item for item in items if item.get_closest_marker("slow") is not None]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]
    if hasattr(config, "workerinput"):  # one of several processes
        items.sort(key=lambda item: _place(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n 2`, one process begins with the tests that start Ray, the other with those that do not, until they meet.

    So both cores stay busy, and for as long as possible only one process at a time starts Ray.
    """
    from xdist.scheduler.loadscope import LoadScopeScheduling

    config.option.loadscopereorder = False  # the order of the tests is that of the queue

    class FromBothEnds(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            _, shared = (*STARTS_RAY, ("", ""))[_place(nodeid)]
            return shared or nodeid.partition("::")[0]

        def _assign_work_unit(self, node: Any) -> None:
            if node is not self.nodes[0]:
                self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
            super()._assign_work_unit(node)

    return FromBothEnds(config, log)


@pytest.fixture(scope="session")
def ray() -> Iterator[Any]:
    """One embedded Ray cluster for the whole session."""
    with ray_session(None, cpus=5, memory=4 * 2**30) as module:
        yield module
