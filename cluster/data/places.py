"""The files of a source that stands for several: a pattern such as `parts/*.csv`, or a folder such as `flowers/`."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass

from cluster.data.rules import SourceRules
from coordinator.job.source_names import TABLES, extension, is_folder, is_pattern, local_path
from coordinator.texts import some
from stages.errors import InvalidData

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
MOST_FILES = 200_000
_MOST_KINDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A file. `inside` is its path in the folder, `kind` its extension."""

    path: str
    inside: str

    @property
    def kind(self) -> str:
        """Its extension, in lower case."""
        return extension(self.path)


def stands_for_several(source: str) -> bool:
    """Whether a source is a folder or a pattern, and not a file in whose name a sign of a pattern stands."""
    path = local_path(source)
    return path is not None and (is_folder(source) or (is_pattern(source) and not os.path.isfile(path)))


def exists(path: str) -> bool:
    """Whether a local file is there or, for a folder, the folder or, for a pattern, a file that fits it."""
    if is_folder(path):
        return os.path.isdir(path)
    return os.path.isfile(path) or (is_pattern(path) and next(glob.iglob(path, recursive=True), None) is not None)


def places_of(source: str, rules: SourceRules | None) -> list[Place]:
    """Return the files of a folder or pattern, sorted by their paths: tables of one kind, or images.

    Files and folders whose names begin with `.` or `_` are left out. Raises InvalidData if the rules do not allow the
    place, or no file is there, or files of several kinds are.
    """
    path = local_path(source) or source
    limits = rules or SourceRules()
    limits.require_protocol(source)
    root = path if is_folder(source) else os.path.dirname(_before_signs(path)) or "."
    limits.require_place(root)
    if is_folder(source) and not os.path.isdir(path):
        what = "is a file, so its name must not end in /" if os.path.exists(path.rstrip("/")) else "no such folder"
        raise InvalidData(f"{source}: {what}{'' if rules is None else _NOT_UPLOADED}")
    found = _in_folder(path) if is_folder(source) else _by_pattern(path)
    if len(found) > MOST_FILES:
        raise InvalidData(f"{source}: stands for {len(found):,} files, must be at most {MOST_FILES:,}")
    kinds = sorted({"images" if place.kind in IMAGES else place.kind for place in found})
    if not found:
        what = "no file is in it" if is_folder(source) else "no file fits"
        raise InvalidData(f"{source}: {what}{'' if rules is None else _NOT_UPLOADED}")
    if len(kinds) > 1 or (kinds[0] not in TABLES and kinds != ["images"]):
        shown = some([kind or "no extension" for kind in kinds], _MOST_KINDS)
        raise InvalidData(f"{source}: has files of these kinds: {shown}; must be tables of one kind, or images")
    return found


_NOT_UPLOADED = "; folders and patterns are not uploaded, so they must be on the machine that reads them"


def _before_signs(pattern: str) -> str:
    return pattern[: min(pattern.index(sign) for sign in "*?[" if sign in pattern)]


def _by_pattern(pattern: str) -> list[Place]:
    found = sorted(path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))
    start = len(os.path.commonpath([os.path.dirname(path) for path in found])) + 1 if found else 0
    return [Place(path=path, inside=path[start:] if start > 1 else path) for path in found]


def _in_folder(folder: str) -> list[Place]:
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        for name in files:
            if not name.startswith((".", "_")):
                path = os.path.join(parent, name)
                found.append(Place(path=path, inside=os.path.relpath(path, folder)))
    return sorted(found, key=lambda place: place.path)
