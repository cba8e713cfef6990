"""Cells of a large text on their way to columns: block by block to a temporary file, which is then mapped."""

from __future__ import annotations

from typing import Any

from cluster.data.temporary import temporary_file

LARGE_TEXT = 2 * 2**30
"""Bytes of a text from which on its cells go to disk. Arrow's reader of blocks has one thread for the cells of a block,
so that it takes longer than the one into memory."""


def stored_table(reader: Any, n_bytes: int, source: str) -> Any:
    """Return the table of Arrow's reader of batches. It is mapped from a file without a name, which nobody can change;
    the kernel takes its pages out of memory when it needs room. `n_bytes`: about what it takes. Raises InvalidData if
    the disk has no room, pyarrow.ArrowInvalid if rows do not fit."""
    import pyarrow as pa

    file = temporary_file(n_bytes, source)
    path = f"/dev/fd/{file.descriptor}"
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
    return pa.ipc.open_file(pa.memory_map(path)).read_all()
