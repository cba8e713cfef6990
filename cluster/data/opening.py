"""Opens data files and URLs. Every error of a file or a file system becomes one line of InvalidData that names the
source."""

from __future__ import annotations

import io
from typing import IO, Any

from cluster.data.array_files import LARGE
from cluster.data.rules import SourceRules
from cluster.data.temporary import moved_to_disk, require_room
from coordinator.job.regular_files import open_regular
from coordinator.job.source_names import extension, local_path
from stages.errors import InvalidData

_READ_IN_PARTS = (".npy", ".npz", ".bin", ".parquet", ".feather", ".arrow")
"""Files that need not fit into memory, so that their size is not limited."""


def one_line(error: BaseException) -> str:
    """Return an error's text as one line of at most 160 characters; its type's name if it has no text."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else f"{text[:157]}..."


def open_source(source: str, rules: SourceRules | None = None) -> IO[bytes]:
    """Open a local file or a URL, if `rules` allow it. Raises InvalidData."""
    rules = rules or SourceRules()
    rules.require_protocol(source)
    path = local_path(source)
    if path is None:
        return _open_url(source, rules)
    try:
        rules.require_place(path)  # first: an error must not reveal whether a forbidden file exists
        file = open_regular(path, None if extension(source) in _READ_IN_PARTS else rules.most_bytes)
        try:
            rules.require_place(path, file.fileno())
        except InvalidData:
            file.close()
            raise
        return file
    except FileNotFoundError:
        raise InvalidData(f"{source}: no such file") from None
    except IsADirectoryError:
        raise InvalidData(f"{source}: is a directory, must be a file") from None
    except (OSError, ValueError) as error:
        raise InvalidData(f"{source}: cannot be read: {one_line(error)}") from None


def _open_url(url: str, rules: SourceRules) -> IO[bytes]:
    """Fetch all bytes of the URL: readers of .npz and .parquet seek, which many servers do not support. Many bytes are
    on disk, in a file without a name."""
    from cluster.data.urls import url_parts

    content: IO[bytes] = io.BytesIO()
    looked = 0
    try:
        for part in url_parts(url, rules):
            content.write(part)
            if content.tell() - looked >= LARGE:
                looked = content.tell()
                if isinstance(content, io.BytesIO):
                    content = moved_to_disk(content, url)
                require_room(looked, url)
        content.seek(0)  # writes what is left in its buffer, for which the disk may have no room
        return content
    except InvalidData:
        raise
    except FileNotFoundError as error:
        raise InvalidData(f"{url}: {_why_not_there(error)}") from None
    except ImportError as error:  # the protocol's package is not installed; the text names it
        raise InvalidData(f"{url}: cannot be opened: {one_line(error)}; install that package with pip") from None
    except Exception as error:  # every file system of fsspec has its own errors
        raise InvalidData(f"{url}: cannot be read: {one_line(error)}") from error


def _why_not_there(error: FileNotFoundError) -> str:
    """Return the real reason: fsspec raises FileNotFoundError for every failed request, and the reason is its cause."""
    cause = error.__cause__
    status = getattr(cause, "status", None)
    if cause is None or status in (404, 410):
        return "no such file"
    if status:
        return f"cannot be read: its server answers {status} {getattr(cause, 'message', '')}".rstrip()
    return f"cannot be read: {one_line(cause)}"


def native_file(file: IO[bytes]) -> Any:
    """Return the same bytes as an Arrow file that uses no Python object.

    Arrow's threads release a file at any later time. To release a Python object they need the interpreter; if that is
    just shutting down, it ends those threads in a way that aborts the process.
    """
    import pyarrow as pa

    if isinstance(file, io.BytesIO):
        copied = pa.BufferOutputStream()
        copied.write(file.getbuffer())
        return pa.BufferReader(copied.getvalue())
    return pa.OSFile(f"/dev/fd/{file.fileno()}", "rb")
