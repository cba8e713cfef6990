"""Standard output for tables."""

from __future__ import annotations

import os
import sys

from rich.console import Console

_UNLIMITED = 10_000


def console() -> Console:
    """As wide as COLUMNS says, else as the terminal; output that goes elsewhere is never cut or broken."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit():
        return Console(highlight=False)
    return Console(highlight=False, width=_UNLIMITED)
