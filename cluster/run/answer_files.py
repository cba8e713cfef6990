"""Writes answers as a table: .csv, .parquet, .feather, .jsonl, or CSV on the standard output. A file appears whole."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol

import orjson

from coordinator import run_files
from stages.errors import UserMistake

STDOUT = "-"
ENDINGS = (".csv", ".parquet", ".npz", ".jsonl", ".feather", ".arrow")


class Writer(Protocol):
    """Writes Arrow's record batches."""

    def write(self, batch: Any) -> None:
        """Write the rows of a batch."""


def require_output(output: str) -> None:
    """Raise UserMistake if answers cannot be written there, as far as that is known before they are."""
    if output == STDOUT:
        return
    file = Path(output)
    if file.suffix.lower() not in ENDINGS:
        raise UserMistake(
            f"--output: {output} must end in {', '.join(ENDINGS)}, or be - for CSV on the standard output"
        )
    if file.is_dir():
        raise UserMistake(f"--output: {output} is a directory, must be a file")
    if not file.parent.is_dir():
        raise UserMistake(f"--output: {output} cannot be written: there is no folder {file.parent}")


@contextlib.contextmanager
def replacing(output: str) -> Iterator[Path]:
    """Yield a path to write to; after the block it becomes `output`, or is removed if the block fails. Raises
    UserMistake if it cannot be written."""
    final = Path(output)
    temporary = final.with_name(run_files.unfinished(final.name))
    try:
        temporary.touch()  # so that a place that cannot be written is told by Python's own error
        yield temporary
        temporary.replace(final)
    except OSError as error:
        raise UserMistake(f"--output: {output} cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def table_writer(output: str, schema: Any) -> Iterator[Writer]:
    """Yield a writer of batches with this Arrow schema. Raises UserMistake."""
    if output == STDOUT:
        yield _Csv(sys.stdout.buffer, schema)
        sys.stdout.buffer.flush()
        return
    with replacing(output) as path, _opened(path, Path(output).suffix.lower(), schema) as writer:
        yield writer


@contextlib.contextmanager
def _opened(path: Path, ending: str, schema: Any) -> Iterator[Writer]:
    import pyarrow as pa
    from pyarrow import parquet

    if ending in (".csv", ".jsonl"):
        with path.open("wb") as file:
            yield _Csv(file, schema) if ending == ".csv" else _JsonLines(file)
        return
    with (
        parquet.ParquetWriter(str(path), schema) if ending == ".parquet" else pa.ipc.new_file(str(path), schema) as one
    ):
        yield one


class _Csv:
    """CSV with a line of names. Texts have quotes if a text of their batch needs them: Arrow quotes all or none."""

    def __init__(self, file: IO[bytes], schema: Any) -> None:
        import csv

        self._file = file
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(schema.names)
        file.write(line.getvalue().encode("utf-8", "surrogatepass"))

    def write(self, batch: Any) -> None:
        """See Writer."""
        import pyarrow as pa
        import pyarrow.compute as pc
        from pyarrow import csv

        texts = [column for column in batch.columns if pa.types.is_string(column.type)]
        quoted = any(pc.any(pc.match_substring_regex(column, '[",\r\n]|^$')).as_py() for column in texts)
        options = csv.WriteOptions(include_header=False, quoting_style="needed" if quoted else "none")
        sink = pa.BufferOutputStream()
        csv.write_csv(batch, sink, options)
        self._file.write(sink.getvalue().to_pybytes())


class _JsonLines:
    """An object for each row, on a line of its own."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, batch: Any) -> None:
        """See Writer."""
        rows = batch.to_pylist()
        self._file.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE, default=str) for row in rows)
