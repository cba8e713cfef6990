"""Facts as notebooks show them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def facts_html(facts: Sequence[tuple[str, str]]) -> str:
    """A small table of (name, value) without what is empty; whatever a value contains is text in it, never markup."""
    rows = "".join(
        f'<tr><th style="text-align:left">{name}</th><td style="text-align:left">{escape(text)}</td></tr>'
        for name, text in facts
        if text
    )
    return f"<table>{rows}</table>"
