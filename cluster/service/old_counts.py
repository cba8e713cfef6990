"""Reads files of an attempt whose runner is of an older version and counted steps and epochs from 0 (decision 0014).

Such a runner may still run while a newer service reads its files. One process writes all files of an attempt, and its
first row is its first step: if that is step 0, all files count from 0.
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
    """Whether the attempt with this file of rows counted from 0; False if it has no row yet."""
    try:
        with open_regular(rows) as file:
            first = file.readline()
    except FileNotFoundError:
        return False
    with contextlib.suppress(ValueError, KeyError, TypeError):  # damaged
        return first.endswith(b"\n") and counts_from_zero(orjson.loads(first))
    return False


def row_from_one(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of such a file, counted from 1. The step of an evaluation was the number of updates in old versions
    too, so only its epoch changes."""
    row = {**row, "epoch": row["epoch"] + 1}
    return row if row["kind"] == "eval" else step_from_one(row)


def step_from_one(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line of accounts or a timeline of such an attempt, counted from 1."""
    return {**content, "step": content["step"] + 1}
