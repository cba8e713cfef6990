"""The bytes of a text file, decompressed: they can be read again and again, by Arrow without a Python object."""

from __future__ import annotations

import io
import os
import weakref
from collections.abc import Iterator
from typing import IO, Any, Protocol

from cluster.data.opening import native_file, one_line
from coordinator.job.regular_files import too_large
from stages.errors import InvalidData

_PART = 4 * 2**20
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_FOREIGN = {
    b"PK\x03\x04": "a zip archive or an Excel file; unpack it, or save the sheet as CSV",
    b"BZh": "compressed by bzip2; use gzip or zstd",
    b"\xfd7zXZ\x00": "compressed by xz; use gzip or zstd",
    b"PAR1": "a parquet file; call it .parquet",
    b"ARROW1": "an Arrow file; call it .arrow",
    b"SQLite format 3": "a database; write the table to a file of text",
}


class PlainBytes(Protocol):
    """Bytes that can be read from any place."""

    size: int

    def native(self, start: int = 0) -> Any:
        """Return an Arrow file that begins to read at `start`."""

    def file(self, start: int = 0) -> IO[bytes]:
        """Return a Python file that begins to read at `start`; the caller closes it."""


class FileBytes:
    """The bytes of an open local file."""

    def __init__(self, file: IO[bytes]) -> None:
        descriptor = os.dup(file.fileno())  # lines are counted after the caller has closed the file
        weakref.finalize(self, os.close, descriptor)
        self._path = f"/dev/fd/{descriptor}"
        self.size = file.seek(0, io.SEEK_END)

    def native(self, start: int = 0) -> Any:
        """See PlainBytes."""
        import pyarrow as pa

        opened = pa.OSFile(self._path, "rb")
        opened.seek(start)
        return opened

    def file(self, start: int = 0) -> IO[bytes]:
        """See PlainBytes."""
        opened = open(self._path, "rb")  # noqa: SIM115 (the caller closes it)
        opened.seek(start)
        return opened


class BufferBytes:
    """Bytes in a buffer of Arrow's."""

    def __init__(self, buffer: Any) -> None:
        self._buffer = buffer
        self.size = buffer.size

    def native(self, start: int = 0) -> Any:
        """See PlainBytes."""
        import pyarrow as pa

        return pa.BufferReader(self._buffer.slice(start))

    def file(self, start: int = 0) -> IO[bytes]:
        """See PlainBytes."""
        return io.BytesIO(memoryview(self._buffer)[start:])


def plain_bytes(file: IO[bytes], source: str, most_bytes: int | None) -> tuple[PlainBytes, str | None]:
    """Return the content of a file, and the name of its compression, which its first bytes show; None if it has none.

    Raises InvalidData if it cannot be decompressed, has more than `most_bytes`, or is a file of another kind.
    """
    start = file.read(16)
    file.seek(0)
    if foreign := next((what for magic, what in _FOREIGN.items() if start.startswith(magic)), None):
        raise InvalidData(f"{source}: is {foreign}")
    kind = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)
    if kind is not None:
        return BufferBytes(_decompressed(file, kind, source, most_bytes)), kind
    if isinstance(file, io.BytesIO):
        return BufferBytes(native_file(file).read_buffer()), None
    return FileBytes(file), None


def _decompressed(file: IO[bytes], kind: str, source: str, most_bytes: int | None) -> Any:
    import pyarrow as pa

    out = pa.BufferOutputStream()
    try:
        with pa.CompressedInputStream(native_file(file), kind) as stream:
            while part := stream.read_buffer(_PART):
                if most_bytes is not None and out.tell() + part.size > most_bytes:
                    raise InvalidData(
                        f"{source}: {too_large(out.tell() + part.size, most_bytes).strerror}, decompressed"
                    )
                out.write(part)
    except OSError as error:
        raise InvalidData(f"{source}: cannot be decompressed: {one_line(error)}; write the file again") from None
    return out.getvalue()


def parts(content: PlainBytes, start: int = 0, size: int = _PART) -> Iterator[bytes]:
    """Yield the bytes from `start` on, in parts."""
    with content.file(start) as file:
        while part := file.read(size):
            yield part
