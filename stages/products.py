"""Matrix products, written into arrays that are there, and through which library they go.

[Note: one pool of BLAS threads] NumPy's and SciPy's wheels bring an OpenBLAS each, each with a pool of threads. Threads
that have worked spin for some milliseconds on the cores that the other pool now needs: with two CPUs a worker was five
times slower than with one. So if BLAS has several threads, all products go through SciPy's, and NumPy's has one thread
(coordinator.plan.blas_threads). With one thread each, NumPy's is as good, and its input gradient some 10 % faster;
products that are to be added to something go through SciPy's in any case, since np.matmul cannot add.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from stages.arrays import Array

_gemm: dict[str, Callable[..., Any]] = {}
_all_through_scipy = False


def load_blas() -> dict[str, Callable[..., Any]]:
    """SciPy's products by dtype. The first who asks loads SciPy: a command that only reads a job needs none."""
    if not _gemm:
        from scipy.linalg import blas

        _gemm.update(float32=blas.sgemm, float64=blas.dgemm)
    return _gemm


def let_all_go_through_scipy(every: bool) -> bool:
    """Choose for this process, before products are made whose bits count; what it was before."""
    global _all_through_scipy
    before, _all_through_scipy = _all_through_scipy, every
    return before


def multiply(a: Array, b: Array, out: Array) -> None:
    """out ← ab. `out` and `b` are C-contiguous (of another `b` a copy is made); `a` is so, or the transpose of one."""
    if not _all_through_scipy:
        np.matmul(a, b, out=out)
        return
    transposed = not a.flags.c_contiguous
    result = (_gemm or load_blas())[out.dtype.name](
        1.0, b.T, a if transposed else a.T, trans_b=transposed, c=(into := out.T), overwrite_c=1
    )
    assert result is into, "BLAS worked on a copy: the output's memory is not C-contiguous"


def add_product(a: Array, b: Array, total: Array, *, accumulate: bool) -> None:
    """total ← ab, or (`accumulate`) total + ab: BLAS adds in the product itself. `a` and `total` are C-contiguous,
    `b` is the transpose of such an array. Here on the transposes, whose memory is Fortran's."""
    result = (_gemm or load_blas())[total.dtype.name](
        1.0, b, a.T, trans_a=1, beta=1.0 if accumulate else 0.0, c=(into := total.T), overwrite_c=1
    )
    assert result is into, "BLAS worked on a copy: the gradient's memory is not C-contiguous"
