"""Standard output for tables."""

from __future__ import annotations

import os
import sys

from rich.console import Console

_UNLIMITED = 10_000


def console() -> Console:
    """Return a console as wide as the variable COLUMNS says, else as the terminal. If the output is no terminal, lines
    are neither cut nor broken."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit():
        return Console(highlight=False)
    return Console(highlight=False, width=_UNLIMITED)
