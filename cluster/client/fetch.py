"""Download a job's files: receive the service's stream of chunks, check them, and move the files into a folder."""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from stages.errors import Refused, UserMistake


def receive_files(chunks: Iterable[Any], folder: Path) -> list[Path]:
    """Write every file of the stream below `folder` and return their paths. Files of the same names are replaced.

    No file appears in the folder before all have arrived with the right checksums. Raises Refused if a file of the
    stream would leave the folder or has a wrong checksum, UserMistake if the folder cannot be written.
    """
    receiver = _Receiver(folder)
    try:
        for chunk in chunks:
            receiver.take(chunk)
        return receiver.finish()
    except OSError as error:
        place = folder if error.filename is None else Path(str(error.filename))
        raise UserMistake(f"{place}: cannot be written: {error.strerror}") from None
    finally:
        receiver.discard()


class _Receiver:
    """A receiver of chunks, in order. Each file has a hidden name until `finish`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()  # made with the first file, so that an unknown job leaves no folder
        self._shown = folder
        self._mark = secrets.token_hex(4)
        self._complete: list[tuple[Path, Path]] = []  # temporary, final
        self._file: BinaryIO | None = None
        self._path, self._size, self._received = "", 0, 0
        self._digest = hashlib.sha256()

    def take(self, chunk: Any) -> None:
        if chunk.path:
            self._begin(chunk.path, chunk.size)
        if self._file is None:
            raise Refused("the service sent data without the name of its file; is it of another version of pipetrain?")
        self._file.write(chunk.data)
        self._digest.update(chunk.data)
        self._received += len(chunk.data)
        if chunk.sha256:
            self._end(chunk.sha256)

    def finish(self) -> list[Path]:
        if self._file is not None:
            raise Refused(f"{self._path}: its end did not arrive; fetch it again")
        for temporary, final in self._complete:
            temporary.replace(final)
        return [self._shown / final.relative_to(self._folder) for _, final in self._complete]

    def discard(self) -> None:
        """Remove the temporary files."""
        if self._file is not None:
            self._file.close()
        for temporary, _ in self._complete:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _begin(self, path: str, size: int) -> None:
        if self._file is not None:
            raise Refused(f"{self._path}: its end did not arrive; fetch it again")
        final = self._place(path)
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = final.with_name(f".{final.name[:100]}.{self._mark}.part")
        self._complete.append((temporary, final))
        self._file = temporary.open("xb")
        self._path, self._size, self._received, self._digest = path, size, 0, hashlib.sha256()

    def _end(self, sha256: str) -> None:
        assert self._file is not None, "take() opened it"
        self._file.close()
        self._file = None
        if self._received != self._size:
            raise Refused(f"{self._path}: {self._received:,} of {self._size:,} bytes arrived; fetch it again")
        if self._digest.hexdigest() != sha256:
            raise Refused(f"{self._path}: its content does not match its checksum; fetch it again")

    def _place(self, path: str) -> Path:
        """Return the path of a file. Raises Refused if its name or a link would lead out of the folder."""
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or re.search(r"[\\\0:]", path):
            raise Refused(f"the service names a file {path!r}, which would leave {self._shown}; nothing was written")
        final = self._folder.joinpath(*parts)
        if not final.parent.resolve().is_relative_to(self._folder) or final.is_dir():
            raise Refused(f"{self._shown / path}: a link or a folder is in the way; fetch into another folder")
        return final
