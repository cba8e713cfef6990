"""Reads the arrays or columns of data files and URLs without checking the values.

Every error of a file or a file system becomes one line of InvalidData that names the source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import IO

from cluster.data.content import AnyArray, Arrays, LazyLines, Table
from cluster.data.formats.arrow_files import read_arrow, read_feather
from cluster.data.formats.built_in import built_in
from cluster.data.formats.delimited import read_delimited
from cluster.data.formats.images import read_images
from cluster.data.formats.joining import different_types, joined, require_same_columns
from cluster.data.formats.json_lines import read_json_lines
from cluster.data.formats.npz import read_npy, read_npz
from cluster.data.formats.parquet import read_parquet
from cluster.data.opening import one_line, open_source
from cluster.data.places import IMAGES, places_of, stands_for_several
from cluster.data.rules import SourceRules
from coordinator.job.data_section import DataSection
from coordinator.job.source_names import extension, source_problem
from stages.errors import InvalidData

__all__ = ["AnyArray", "Arrays", "LazyLines", "Table", "one_line", "open_source", "read_source"]


def read_source(source: str, rules: SourceRules | None = None, data: DataSection | None = None) -> Arrays | Table:
    """Read a built-in source, a local file or a URL, if `rules` allow it (by default all are allowed).

    `data` says how: its dialect, the names of arrays, the columns that are not used. Raises InvalidData with a line for
    each problem, which names the source.
    """
    if problem := source_problem(source):
        raise InvalidData(f"data source: {problem}")
    if source in ("digits", "diabetes"):
        return built_in(source)
    if stands_for_several(source):
        return _read_several(source, rules, data)
    return _read_file(source, rules, data)


def _read_several(source: str, rules: SourceRules | None, data: DataSection | None) -> Arrays | Table:
    places = places_of(source, rules)
    paths, insides = [place.path for place in places], [place.inside for place in places]
    if places[0].kind in IMAGES:
        return read_images(paths, insides, source, lambda path: open_source(path, rules))

    def read(path: str, as_text: Sequence[str] = ()) -> Table:
        table = _read_file(path, rules, data, as_text)
        assert isinstance(table, Table), "places_of returns tables and images only"
        return table

    def place_in(file: int, row: int) -> str:
        return read(paths[file]).where(row)

    tables = [read(path) for path in paths]
    require_same_columns(tables, paths)
    if places[0].kind.startswith((".csv", ".tsv")) and (differing := different_types(tables)):
        tables = [read(path, differing) for path in paths]  # as in one file: a column with a text is a column of texts
    return joined(tables, paths, insides, place_in, source)


def _read_file(
    source: str, rules: SourceRules | None, data: DataSection | None, as_text: Sequence[str] = ()
) -> Arrays | Table:
    with ExitStack() as opened:
        file = opened.enter_context(open_source(source, rules))
        try:
            if extension(source) == ".npy":
                return _read_pair(file, source, rules, data, opened)
            return _read(file, source, data, None if rules is None else rules.most_bytes, as_text)
        except InvalidData:
            raise
        except MemoryError:
            raise InvalidData(
                f"{source}: does not fit into this machine's memory; split it into smaller files"
            ) from None
        except Exception as error:  # zipfile, zlib, NumPy and Arrow raise different errors for a broken file
            kind = extension(source)
            raise InvalidData(f"{source}: cannot be read as {kind}: {one_line(error)}") from error


def _read_pair(
    file: IO[bytes], source: str, rules: SourceRules | None, data: DataSection | None, opened: ExitStack
) -> Arrays:
    """Read a .npy file of inputs, with the targets that belong to it if it is `data.source`."""
    if data is None or data.target is None or source != data.source:
        return read_npy(file, source, None, "")
    (target,) = data.target
    return read_npy(file, source, opened.enter_context(open_source(target, rules)), target)


def _read(
    file: IO[bytes], source: str, data: DataSection | None, most_bytes: int | None, as_text: Sequence[str]
) -> Arrays | Table:
    kind = extension(source).split(".")[1]
    if kind in ("csv", "tsv"):
        given = None if data is None else data.csv
        return read_delimited(file, source, given, most_bytes, tabs=kind == "tsv", as_text=as_text)
    if kind == "npz":
        return read_npz(file, source, None if data is None else data.arrays, most_bytes)
    if kind == "jsonl":
        return read_json_lines(file, source, most_bytes)
    return _READERS[kind](file, source)


_READERS: dict[str, Callable[[IO[bytes], str], Arrays | Table]] = {
    "parquet": read_parquet,
    "feather": read_feather,
    "arrow": read_arrow,
}
