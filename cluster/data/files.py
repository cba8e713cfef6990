"""Opens data files and URLs, and reads their arrays or columns without checking the values.

Every error of a file or a file system becomes one line of InvalidData that names the source.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from cluster.data.rules import SourceRules
from coordinator.job.regular_files import open_regular
from coordinator.job.source_names import extension, local_path, source_problem
from stages.errors import InvalidData

AnyArray = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Arrays:
    """The content of an .npz file or a built-in source. x: (rows, …); y: (rows, …), or None."""

    x: AnyArray
    y: AnyArray | None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Table:
    """The content of a file with named columns: pyarrow's columns by name, in the file's order.

    `index` names the columns that are an index by the file's own account. `notes` say what the reader found, such as
    its delimiter. `lines` are the lines of the file on which its rows begin, as an editor counts them; None if it has
    no lines.
    """

    columns: dict[str, Any]
    n_rows: int
    index: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    lines: AnyArray | None = None


def read_source(source: str, rules: SourceRules | None = None) -> Arrays | Table:
    """Read a built-in source, a local file or a URL, if `rules` allow it (by default all are allowed).

    Raises InvalidData, in one line that names the source.
    """
    if problem := source_problem(source):
        raise InvalidData(f"data source: {problem}")
    if source in ("digits", "diabetes"):
        return _built_in(source)
    with open_source(source, rules) as file:
        try:
            return _READERS[extension(source)](file, source)
        except InvalidData:
            raise
        except MemoryError:
            raise InvalidData(
                f"{source}: does not fit into this machine's memory; split it into smaller files"
            ) from None
        except Exception as error:  # zipfile, zlib, NumPy and Arrow raise different errors for a broken file
            kind = extension(source)
            raise InvalidData(f"{source}: cannot be read as {kind}: {one_line(error)}") from error


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
        file = open_regular(path, rules.most_bytes)
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
    """Fetch all bytes of the URL: readers of .npz and .parquet seek, which many servers do not support."""
    from cluster.data.urls import url_parts

    content = io.BytesIO()
    try:
        for part in url_parts(url, rules):
            content.write(part)
    except InvalidData:
        raise
    except FileNotFoundError as error:
        raise InvalidData(f"{url}: {_why_not_there(error)}") from None
    except ImportError as error:  # the protocol's package is not installed; the text names it
        raise InvalidData(f"{url}: cannot be opened: {one_line(error)}; install that package with pip") from None
    except Exception as error:  # every file system of fsspec has its own errors
        raise InvalidData(f"{url}: cannot be read: {one_line(error)}") from error
    content.seek(0)
    return content


def _why_not_there(error: FileNotFoundError) -> str:
    """Return the real reason: fsspec raises FileNotFoundError for every failed request, and the reason is its cause."""
    cause = error.__cause__
    status = getattr(cause, "status", None)
    if cause is None or status in (404, 410):
        return "no such file"
    if status:
        return f"cannot be read: its server answers {status} {getattr(cause, 'message', '')}".rstrip()
    return f"cannot be read: {one_line(cause)}"


def _built_in(source: str) -> Arrays:
    """Return one of scikit-learn's data sets, scaled so that plain SGD trains on it.

    digits: 1797 images, x (1797, 64) = pixels / 16, so from 0 to 1; y labels 0..9.
    diabetes: x (442, 10) and y (442, 1), each column with mean 0 and standard deviation 1 over all 442 rows; a model
    that always predicts the mean has an mse of 1. (Original target: mean 152.1, standard deviation 77.0.)
    """
    from sklearn import datasets

    if source == "digits":
        x, y = datasets.load_digits(return_X_y=True)
        return Arrays(x=x / 16, y=y)
    x, y = datasets.load_diabetes(return_X_y=True, scaled=False)
    return Arrays(x=_standardised(x), y=_standardised(y[:, None]))


def _standardised(columns: AnyArray) -> AnyArray:
    scaled: AnyArray = (columns - columns.mean(axis=0)) / columns.std(axis=0)
    return scaled


def _read_npz(file: IO[bytes], source: str) -> Arrays:
    archive = np.load(file, allow_pickle=False)
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise InvalidData(
            f"{source}: holds a single array, must hold x and y; write it with numpy.savez(file, x=x, y=y)"
        )
    with archive:
        if "x" not in archive.files:
            raise InvalidData(f"{source}: has no array x, only {', '.join(archive.files) or 'nothing'}")
        return Arrays(x=archive["x"], y=archive["y"] if "y" in archive.files else None)


def _read_csv(file: IO[bytes], source: str) -> Table:
    from pyarrow import csv

    return _table(csv.read_csv(_native(file)), source)


def _read_parquet(file: IO[bytes], source: str) -> Table:
    from pyarrow import parquet

    return _table(parquet.ParquetFile(_native(file)).read(), source)


def _native(file: IO[bytes]) -> Any:
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


def _table(table: Any, source: str) -> Table:
    names: list[str] = table.column_names
    if names and all(_is_number(name) for name in names):
        raise InvalidData(f"{source}: its first line is {', '.join(names[:5])}; it must name the columns")
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidData(f"{source}: has several columns called {doubled[0]!r}; give each its own name")
    return Table(columns={name: table.column(name) for name in names}, n_rows=table.num_rows)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_READERS: dict[str, Callable[[IO[bytes], str], Arrays | Table]] = {
    ".npz": _read_npz,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
