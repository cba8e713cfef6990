"""What workers know of each other before they connect, and the codes in the header of a message."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stages.actions import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerAddress:
    """A worker's addresses, its public key for TCP, and the secret that it shows to workers of its host. `link` is ""
    if this host or process cannot share memory. `clock` names its monotonic clock; it may use `cores` cores."""

    worker: int
    host: str
    node: str
    pid: int
    unix: str
    tcp: str
    link: str
    public_key: bytes
    secret: bytes = field(repr=False)
    clock: str
    cores: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkChoice:
    """How workers of one host are linked. None leaves it to the host: whether it can share memory, and has a core for
    each worker that waits by spinning."""

    shares_memory: bool | None = None
    spin: bool | None = None


_CONNECTIONS = 2**32


def generation_of(attempt: int, connection: int) -> int:
    """Return the generation of a job's channels: `connection` counts, from 0, how often the workers of the attempt were
    connected anew."""
    return attempt * _CONNECTIONS + connection


DTYPE_CODES: dict[np.dtype[Any], bytes] = {np.dtype(np.float32): b"f", np.dtype(np.float64): b"d"}
DTYPES: dict[object, np.dtype[np.floating[Any]]] = {code: dtype for dtype, code in DTYPE_CODES.items()}
KIND_CODES = {kind: kind.value.encode() for kind in Kind}
KINDS: dict[object, Kind] = {code: kind for kind, code in KIND_CODES.items()}
