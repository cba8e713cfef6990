"""A page takes longer where every CPU trains."""

from __future__ import annotations

from typing import Any

from nicegui import Client

from cluster.dashboard import pages


def test_no_page_is_given_up_after_a_few_seconds() -> None:
    """It was after three: an error 500 in place of the list of jobs, on a machine that did what it is for."""
    site: Any = None
    before = set(Client.page_configs)
    pages.register(site)
    found = {page.path: page.response_timeout for made, page in Client.page_configs.items() if made not in before}
    assert found.keys() >= {"/", "/jobs/{job}", "/submit", "/cluster", "/schedule"}
    assert min(found.values()) >= 30, found
