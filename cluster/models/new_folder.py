"""The new folder that an import or an export writes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from coordinator import run_files
from stages.errors import UserMistake


def require_free(into: Path) -> None:
    """Raise UserMistake if `into` is a file or a folder that holds something. Called before anything large is read."""
    if into.is_dir() and any(into.iterdir()):
        raise UserMistake(f"{into}: is there already, and not empty; choose another folder with -o")
    if into.exists() and not into.is_dir():
        raise UserMistake(f"{into}: is a file; choose another folder with -o")


@contextlib.contextmanager
def new_folder(into: Path, files: Sequence[str]) -> Iterator[None]:
    """Make the folder, in which the block writes `files`. If the block fails, remove them, and the folders that were
    made for them, so that the same command can be tried again. Raises OSError."""
    made = [place for place in (into, *into.parents) if not place.exists()]
    try:
        into.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for name in files:
            for file in (into / name, into / run_files.unfinished(name)):
                with contextlib.suppress(OSError):
                    file.unlink(missing_ok=True)
        for place in made:
            with contextlib.suppress(OSError):
                place.rmdir()
        raise
