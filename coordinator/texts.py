"""Figures as people read them: counts, sizes, durations and shares, written alike in errors, terminal and pages.

None means "not known" and is written as `absent`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

BYTES_OF = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40} | {
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
"""Units in which job files and options may give a size."""
_ABSENT = "–"


def counted(n: int, noun: str) -> str:
    """`1 stage`, `3 stages`, `2 micro-batches`, `1,000 steps`."""
    plural = "es" if noun.endswith(("ch", "s")) else "s"
    return f"{n:,} {noun}{plural if n != 1 else ''}"


def some(names: Sequence[str], most: int = 3) -> str:
    """The first `most` names and how many there are besides: `a, b, c and 4 more`."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def number(value: float | None, absent: str = _ABSENT) -> str:
    """Four digits, or all before the point: `0.02482`, `12,345`, `1.2e16`. `number` of dashboard.js writes the same."""
    if value is None:
        return absent
    if value and math.isfinite(value) and not 1e-4 <= abs(value) < 1e6:
        digits, exponent = f"{value:.3e}".split("e")
        return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:,.0f}" if math.isfinite(value) and abs(value) >= 1000 else f"{value:.4g}"


def exact(value: float) -> str:
    """A value that is exact: whole numbers and halves with all their digits, `333,333,334`, `2.5`; others as `number`
    writes them."""
    if not (2.0 * value).is_integer():
        return number(value)
    return f"{value:,.1f}".removesuffix(".0")


def per_second(samples: float) -> str:
    """A speed as `1,234` samples a second, or `0.062` of a network that takes seconds for one."""
    return f"{samples:,.0f}" if samples >= 10 else f"{samples:.2g}"


def precise_span(seconds: float) -> str:
    """A short duration with three digits: `432 µs`, `2.63 ms`, `1.2 s`."""
    unit, factor = ("s", 1.0) if seconds >= 0.9995 else ("ms", 1e3) if seconds >= 0.9995e-3 else ("µs", 1e6)
    value = seconds * factor
    return f"{value:,.0f} {unit}" if value >= 999.5 else f"{value:.3g} {unit}"


def step_time(mean: float, median: float) -> str:
    """The time of a step as `2.63 ms (median 2.31 ms)`: steps that were held up count in the mean only."""
    return f"{precise_span(mean)} (median {precise_span(median)})"


def share(value: float | None, digits: int = 1, absent: str = _ABSENT) -> str:
    """A share from 0 to 1 as `31.2%`, with `digits` digits after the point."""
    return absent if value is None else f"{value:.{digits}%}"


def text_measures(perplexity: float | None, bits_per_byte: float | None) -> list[str]:
    """Return the texts of the values that are known: `["perplexity 6.621", "2.727 bits/byte"]`."""
    perplexities = [] if perplexity is None else [f"perplexity {perplexity:.4g}"]
    return perplexities + ([] if bits_per_byte is None else [f"{bits_per_byte:.4g} bits/byte"])


def size(n_bytes: float | None, rounding: Literal["nearest", "up", "down"] = "nearest", absent: str = _ABSENT) -> str:
    """Bytes as `12.3 MiB`. Round a need `up` and the space for it `down`, so that the texts show a lack too. Both are
    often whole numbers, and are written without `.0`."""
    if n_bytes is None:
        return absent
    for unit in ("GiB", "MiB", "KiB"):
        tenths = 10 * n_bytes / BYTES_OF[unit]
        if tenths >= 10:
            if rounding == "nearest":
                return f"{tenths / 10:,.1f} {unit}"
            rounded = math.ceil(tenths) if rounding == "up" else math.floor(tenths)
            return f"{rounded / 10:,.1f}".removesuffix(".0") + f" {unit}"
    return f"{n_bytes:g} B"


def span(seconds: float, *, compact: bool = False) -> str:
    """`0.4 s`, `42 s`, `5 min`, `3.2 h`, `12 d`; in the columns of a table `compact`: `0.4s`, `42s`, `5m`, `3h`."""
    for unit, short, length in (("d", "d", 86400), ("h", "h", 3600), ("min", "m", 60)):
        if seconds >= 2 * length:
            value = seconds / length
            return f"{value:.0f}{short}" if compact else f"{value:.{int(unit == 'h')}f} {unit}"
    value = max(0.0, seconds)
    return f"{value:.{int(value < 10)}f}{'' if compact else ' '}s"
