"""A job's rows as a pandas DataFrame. Only this module needs pandas."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Literal, get_args

from coordinator.train.rows import EvalRow, Row, StepRow
from stages.errors import UserMistake

if TYPE_CHECKING:
    from pandas import DataFrame

FrameKind = Literal["steps", "evaluations"]
ROW_TYPES: dict[FrameKind, type[Row]] = {"steps": StepRow, "evaluations": EvalRow}

_INTEGERS = ("step", "epoch", "samples")
_COLUMNS: dict[FrameKind, tuple[str, ...]] = {
    kind: tuple(one.name for one in fields(row) if one.name not in ("attempt", "summed"))
    for kind, row in ROW_TYPES.items()
}


def require_frames(kind: FrameKind) -> None:
    """Raise UserMistake if there is no such kind, or pandas is not installed."""
    if kind not in ROW_TYPES:
        raise UserMistake(f"to_frame: got {kind!r}, must be one of {', '.join(map(repr, get_args(FrameKind)))}")
    try:
        importlib.import_module("pandas")
    except ImportError as error:
        raise UserMistake(f"to_frame needs pandas: pip install 'pipetrain[pandas]' ({error})") from None


def frame_of(rows: Sequence[Row], kind: FrameKind) -> DataFrame:
    """Return the rows of this kind, indexed by `step`: whole numbers as int64, the others as float64, unknown ones
    NaN."""
    import pandas

    own = [row for row in rows if isinstance(row, ROW_TYPES[kind])]
    columns = {
        name: pandas.Series([getattr(row, name) for row in own], dtype="int64" if name in _INTEGERS else "float64")
        for name in _COLUMNS[kind]
    }
    return pandas.DataFrame(columns).set_index("step")
