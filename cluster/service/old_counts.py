"""Files of an attempt whose runner counted steps and epochs from 0, as those of older versions do (decision 0014).

Such a runner may go on while a newer service reads what it writes. All files of an attempt are written by one process,
and its first row is its first step: where that is 0, all of them count from 0.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from coordinator.job.regular_files import open_regular


def counts_from_zero(first_row: Mapping[str, Any]) -> bool:
    """Whether the attempt that begins with this row of metrics counted from 0."""
    return bool(first_row["kind"] == "step" and first_row["step"] == 0)


def file_counts_from_zero(rows: Path) -> bool:
    """The same of an attempt's file of rows; False where no row is there yet."""
    try:
        with open_regular(rows) as file:
            first = file.readline()
    except FileNotFoundError:
        return False
    with contextlib.suppress(ValueError, KeyError, TypeError):  # damaged
        return first.endswith(b"\n") and counts_from_zero(orjson.loads(first))
    return False


def row_from_one(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of such a file as it is counted now. Evaluations had the number of updates already, but not the epoch."""
    row = {**row, "epoch": row["epoch"] + 1}
    return row if row["kind"] == "eval" else step_from_one(row)


def step_from_one(content: Mapping[str, Any]) -> dict[str, Any]:
    """A line of accounts or a timeline of such an attempt as it is counted now."""
    return {**content, "step": content["step"] + 1}
