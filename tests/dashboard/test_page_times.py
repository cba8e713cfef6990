"""A page takes longer to make if all CPUs are training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from nicegui import ui

from cluster.dashboard import pages


def test_no_page_is_given_up_after_a_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that trained, a page took more than the default 3 s, and the answer was 500."""
    found: dict[str, float] = {}

    def page(path: str, *, response_timeout: float = 3.0, **_: Any) -> Callable[[Any], Any]:
        found[path] = response_timeout
        return lambda builder: builder

    monkeypatch.setattr(ui, "page", page)
    site: Any = None
    pages.register(site)
    assert found.keys() >= {"/", "/jobs/{job}", "/submit", "/cluster", "/schedule", "/lab"}
    assert min(found.values()) >= 30, found
