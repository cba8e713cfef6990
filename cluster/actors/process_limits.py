"""A worker's memory: a limit that the kernel enforces, and measurements."""

from __future__ import annotations

import contextlib
import gc
import resource
from pathlib import Path

from stages.process_memory import status_bytes

_RUNTIME_SLACK = 32 * 2**20  # for Python, Ray and ZeroMQ while the job runs


def limit_memory(n_bytes: int) -> None:
    """Let this process allocate at most `n_bytes` more than it has now, plus 32 MiB for its runtime. Beyond that, an
    allocation raises MemoryError.

    RLIMIT_DATA counts private writable memory (setrlimit(2)), so shared libraries and Ray's object store do not matter.
    """
    limit = data_bytes() + n_bytes + _RUNTIME_SLACK
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def data_bytes() -> int:
    """Return the private writable memory of this process in bytes, as RLIMIT_DATA counts it."""
    return status_bytes("VmData")


def begin_measuring() -> int:
    """Reset the peak of resident memory; return the bytes resident now."""
    with contextlib.suppress(OSError):  # proc(5): resets the peak; some kernels are built without it
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return status_bytes("VmRSS")


def spare_what_is_loaded() -> None:
    """Let Python's search for garbage leave out all objects that exist now, most of them of imported modules. With them
    a search takes some 50 ms, in the middle of a step. Call it before the job's own objects are made."""
    gc.collect()  # else garbage of the imports would stay for ever
    gc.freeze()


_WIDEST, _ROWS = 2**15, 768
"""A product of so many rows and columns uses all of OpenBLAS's work space; one of fewer rows leaves most of it out."""


def warm_up_blas(precision: str, widest: int = 0) -> None:
    """Let both BLAS libraries allocate their work space now, so that it does not count as the job's memory. The work
    space of a product grows with the rows of its weight; `widest` is the largest number of them."""
    import numpy as np
    from scipy.linalg import blas

    a = np.ones((256, 256), dtype=precision)
    np.matmul(a, a)
    b, c = np.ones((_ROWS, 256), dtype=precision), np.ones((min(max(256, widest), _WIDEST), 256), dtype=precision)
    (blas.sgemm if precision == "float32" else blas.dgemm)(1.0, b.T, c.T, trans_a=1)
