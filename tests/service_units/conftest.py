from __future__ import annotations

from pathlib import Path

import pytest

from cluster.service.home import Home
from tests.service_units.senders import made_home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home of a service, with its folders."""
    return made_home(tmp_path / "home")
