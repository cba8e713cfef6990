"""The options of layers: plain dataclasses whose fields describe the values that are right.

The job's reader (coordinator.job.layer_entries) makes its checks from them, so that only the layer's own file
defines its options.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field
from typing import Any


def option(right: str, *, default: Any = MISSING, **limits: float) -> Any:
    """Declare a field of an options class. `right` completes "must be …"; `limits` are ge, gt, le and lt of a
    number."""
    metadata = {"right": right, "limits": limits}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoOptions:
    """The options of a layer that has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Init:
    """`init`: weights are drawn with the standard deviation `std`."""

    std: float = option("a number, at least 0", ge=0)
