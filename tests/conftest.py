from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cluster.ray_session import ray_session


@pytest.fixture(scope="session")
def ray() -> Iterator[Any]:
    """One embedded Ray cluster for the whole session."""
    with ray_session(None, cpus=5, memory=4 * 2**30) as module:
        yield module
