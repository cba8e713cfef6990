"""Facts as HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def facts_html(facts: Sequence[tuple[str, str]]) -> str:
    """Return a small table of the (name, value) whose value is not empty. Values are escaped, so that they are text and
    never markup."""
    rows = "".join(
        f'<tr><th style="text-align:left">{name}</th><td style="text-align:left">{escape(text)}</td></tr>'
        for name, text in facts
        if text
    )
    return f"<table>{rows}</table>"
