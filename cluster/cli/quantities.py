"""Sizes and durations as types of options."""

from __future__ import annotations

import re
from typing import Any

import click

from coordinator.texts import BYTES_OF

_BYTES = {"": 1, **BYTES_OF}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


class Size(click.ParamType):  # type: ignore[type-arg]  # not before click 8.2
    """A number of bytes, of at least one: `16GiB`, `500MB`, `4096`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number of bytes."""
        found = _quantity(value, _BYTES)
        if found is None or not 1 <= found < 2**63:
            self.fail(f"got {value!r}, must be a size such as 16GiB, 500MB or a number of bytes", param, ctx)
        return int(found)


class Duration(click.ParamType):  # type: ignore[type-arg]
    """A duration of at least a second: `7d`, `12h`, `90s`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number of seconds."""
        found = _quantity(value, _SECONDS)
        if found is None or not 1 <= found < 1e9:
            self.fail(f"got {value!r}, must be a time such as 7d, 12h, 30m or 90s", param, ctx)
        return found


def _quantity(value: Any, units: dict[str, int]) -> float | None:
    found = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)", str(value).strip())
    return float(found[1]) * units[found[2]] if found and found[2] in units else None
