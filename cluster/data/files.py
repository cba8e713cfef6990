"""Reads the arrays or columns of data files and URLs without checking the values.

Every error of a file or a file system becomes one line of InvalidData that names the source.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import IO

from cluster.data.content import AnyArray, Arrays, Lines, Table
from cluster.data.formats.arrow_files import read_arrow, read_feather
from cluster.data.formats.built_in import built_in
from cluster.data.formats.delimited import read_delimited
from cluster.data.formats.json_lines import read_json_lines
from cluster.data.formats.npz import read_npz
from cluster.data.formats.parquet import read_parquet
from cluster.data.opening import one_line, open_source
from cluster.data.rules import SourceRules
from coordinator.job.data_section import DataSection
from coordinator.job.source_names import extension, source_problem
from stages.errors import InvalidData

__all__ = ["AnyArray", "Arrays", "Lines", "Table", "one_line", "open_source", "read_source"]


def read_source(source: str, rules: SourceRules | None = None, data: DataSection | None = None) -> Arrays | Table:
    """Read a built-in source, a local file or a URL, if `rules` allow it (by default all are allowed).

    `data` says how: its dialect, the names of arrays, the columns that are not used. Raises InvalidData with a line for
    each problem, which names the source.
    """
    if problem := source_problem(source):
        raise InvalidData(f"data source: {problem}")
    if source in ("digits", "diabetes"):
        return built_in(source)
    with open_source(source, rules) as file:
        try:
            return _read(file, source, data, None if rules is None else rules.most_bytes)
        except InvalidData:
            raise
        except MemoryError:
            raise InvalidData(
                f"{source}: does not fit into this machine's memory; split it into smaller files"
            ) from None
        except Exception as error:  # zipfile, zlib, NumPy and Arrow raise different errors for a broken file
            kind = extension(source)
            raise InvalidData(f"{source}: cannot be read as {kind}: {one_line(error)}") from error


def _read(file: IO[bytes], source: str, data: DataSection | None, most_bytes: int | None) -> Arrays | Table:
    kind = extension(source).split(".")[1]
    if kind in ("csv", "tsv"):
        return read_delimited(file, source, None if data is None else data.csv, most_bytes, tabs=kind == "tsv")
    if kind == "jsonl":
        return read_json_lines(file, source, most_bytes)
    return _READERS[kind](file, source)


_READERS: dict[str, Callable[[IO[bytes], str], Arrays | Table]] = {
    "npz": read_npz,
    "parquet": read_parquet,
    "feather": read_feather,
    "arrow": read_arrow,
}
