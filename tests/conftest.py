from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from cluster.ray_session import ray_session

# the same examples every time, so that a red run means a change; EXPLORE=1 looks for new ones; a slow run is none
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("explore" if os.environ.get("EXPLORE") else "steady")


@pytest.fixture(scope="session")
def ray() -> Iterator[Any]:
    """One embedded Ray cluster for the whole session."""
    with ray_session(None, cpus=5, memory=4 * 2**30) as module:
        yield module
