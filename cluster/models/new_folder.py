"""The new folder that an import or an export writes."""

from __future__ import annotations

from pathlib import Path

from stages.errors import UserMistake


def require_free(into: Path) -> None:
    """Raise UserMistake if `into` is a file or a folder that holds something. Called before anything large is read."""
    if into.is_dir() and any(into.iterdir()):
        raise UserMistake(f"{into}: is there already, and not empty; choose another folder with -o")
    if into.exists() and not into.is_dir():
        raise UserMistake(f"{into}: is a file; choose another folder with -o")
