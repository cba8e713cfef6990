"""Checkpoints at a URL: `s3://bucket/run/step-00000100/` with the files of a layer each, and checkpoint.json.

A store of objects cannot rename a folder. So the manifest is written last: a folder without it, or with a part of it,
is no checkpoint. The manifest is deleted first, too.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cluster.checkpoints.checksums import crc32
from cluster.checkpoints.folder import CheckpointFolder, read_manifest
from cluster.checkpoints.layer_files import step_folder
from cluster.checkpoints.manifest import MANIFEST, Manifest
from cluster.data.files import one_line
from cluster.data.rules import FREE, SourceRules
from coordinator import run_files
from coordinator.job.checkpoint_section import CheckpointSection
from coordinator.job.source_names import local_path, protocol
from stages.errors import InvalidData, UserMistake
from stages.snapshots import WrittenFile

_PART = 2**22
_AT_ONCE = 4  # transfers: one alone rarely uses a network or a server to the full


def place_of(url: str) -> Any:
    """Return the place of a URL, which has the methods of a Path. Raises UserMistake if nothing can open it."""
    from upath import UPath

    try:
        place = UPath(url)
        _ = place.fs  # makes the file system
    except ImportError as error:  # the protocol's package is not installed; the text names it
        raise UserMistake(f"{url}: cannot be opened: {one_line(error)}; install that package with pip") from None
    except Exception as error:  # every file system has its own errors
        raise UserMistake(f"{url}: cannot be opened: {one_line(error)}") from None
    return place


def require_target(section: CheckpointSection | None, rules: SourceRules, *, links: bool = False) -> None:
    """Raise UserMistake if `checkpoint.to` cannot be opened, or is not allowed: a job of the service writes to the
    protocols of clouds that data is read from, and to folders as its trackers do. `links`: follow symbolic links."""
    if section is None or section.to is None:
        return
    kind, clouds = protocol(section.to), [one for one in rules.protocols if one not in ("file", "http", "https")]
    folder = local_path(section.to) if kind == "file" else None
    if folder is not None and not rules.may_write(folder, links=links):
        raise UserMistake(f"checkpoint.to: got {section.to}, jobs may not write into this folder of the service's host")
    if rules != FREE and kind != "file" and kind not in clouds:
        raise UserMistake(f"checkpoint.to: got {section.to}, this service writes only to {', '.join(clouds) or 'none'}")
    if links:
        place_of(section.to)


class CheckpointsAtUrl(CheckpointFolder):
    """The checkpoints below a URL. The methods raise any error of the URL's file system."""

    def __init__(self, url: str) -> None:
        super().__init__(place_of(url))
        self.url = url

    def steps(self) -> list[int]:
        """See CheckpointFolder."""
        self._forget()
        return super().steps()

    def put(self, place: Path, manifest: Manifest) -> None:
        """Copy the checkpoint in the folder `place`. If it is there already, bit by bit, do nothing."""
        there = self.place(manifest.step)
        if self._has(there, manifest):
            return
        self._remove_manifest(there)
        there.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="upload") as pool:
            for done in [pool.submit(_copy, place / file.name, there / file.name) for file in manifest.files]:
                done.result()
        (there / MANIFEST).write_bytes(manifest.content())
        self._forget()

    def delete(self, step: int) -> None:
        """See CheckpointFolder."""
        there = self.place(step)
        self._remove_manifest(there)
        there.fs.rm(there.path, recursive=True)  # type: ignore[attr-defined]
        self._forget()

    def _has(self, there: Path, manifest: Manifest) -> bool:
        try:
            return there.is_dir() and read_manifest(there).files == manifest.files
        except InvalidData:
            return False

    def _remove_manifest(self, there: Path) -> None:
        if (there / MANIFEST).is_file():
            (there / MANIFEST).unlink()

    def _forget(self) -> None:
        """Forget what the file system remembers of the folder's content."""
        self.path.fs.invalidate_cache()  # type: ignore[attr-defined]


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("wb") as written:
        shutil.copyfileobj(read, written, _PART)


def fetch_newest(url: str, beside: Path, notify: Callable[[str], None]) -> Path:
    """Bring the newest whole checkpoint below a URL, or the checkpoint at it, to this host; return its folder, in a new
    folder beside the path `beside`.

    Every file is compared with its checksum on its way. A damaged checkpoint is passed over, and `notify` is called
    with a line about it. Raises InvalidData if there is none.
    """
    within = beside.absolute().parent / f".fetched-{secrets.token_hex(4)}"
    try:
        for place in _candidates(url):
            try:
                return _fetch(place, within, notify)
            except InvalidData as error:
                notify(f"{error.problems[0]}; trying the checkpoint before it")
        raise InvalidData(f"{url}: has no whole checkpoint")
    except InvalidData:
        shutil.rmtree(within, ignore_errors=True)
        raise
    except Exception as error:
        shutil.rmtree(within, ignore_errors=True)
        raise InvalidData(f"{url}: cannot be read: {one_line(error)}") from error


def _candidates(url: str) -> list[Path]:
    """Return the checkpoint at a URL, or those below it, the newest first."""
    if (place_of(url) / MANIFEST).is_file():
        return [place_of(url)]
    folder = checkpoints_at(url)
    return [folder.place(step) for step in reversed(folder.steps())]


def checkpoints_at(url: str) -> CheckpointsAtUrl:
    """Return the checkpoints below a URL; a run directory may have been copied there as a whole."""
    within = CheckpointsAtUrl(f"{url.rstrip('/')}/{run_files.CHECKPOINTS}")
    return within if within.path.is_dir() else CheckpointsAtUrl(url)


def _fetch(place: Path, within: Path, notify: Callable[[str], None]) -> Path:
    manifest = read_manifest(place)
    into = within / step_folder(manifest.step)
    into.mkdir(parents=True, exist_ok=True)
    notify(f"fetching {place}")
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="fetch") as pool:
        for done in [pool.submit(_fetch_file, place / file.name, into / file.name, file) for file in manifest.files]:
            done.result()
    (into / MANIFEST).write_bytes(manifest.content())
    return into


def _fetch_file(source: Path, target: Path, file: WrittenFile) -> None:
    crc = size = 0
    try:
        with source.open("rb") as read, target.open("wb") as written:
            while part := read.read(_PART):
                crc, size = crc32(part, crc), size + len(part)
                written.write(part)
    except FileNotFoundError:
        raise InvalidData(f"{source}: no such file") from None
    if (size, crc) != (file.n_bytes, file.crc32):
        raise InvalidData(f"{source}: its {size:,} bytes are not the {file.n_bytes:,} that were written")
