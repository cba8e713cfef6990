"""The cells of a table's columns as NumPy and Arrow arrays: numbers with NaN for empty ones, or texts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def is_numeric(column: Any) -> bool:
    """Whether the file stores the column as numbers or truth values."""
    import pyarrow as pa

    kind = column.type
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    )


def number_cells(column: Any) -> Numbers:
    """Return a numeric column as float64 (rows,), NaN for empty cells."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column
    cells: Numbers = np.asarray(pc.cast(column, pa.float64(), safe=False).to_numpy(), dtype=np.float64)
    return cells


def text_cells(column: Any) -> Any:
    """Return a column as Arrow texts (rows,), null for empty cells and empty texts."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pc.cast(column, pa.string())
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)


def empty_cells(column: Any) -> NDArray[np.bool_]:
    """Return for each row whether its cell is empty: null, NaN or an empty text."""
    if is_numeric(column):
        return np.isnan(number_cells(column))
    return np.asarray(text_cells(column).is_null().to_numpy())
