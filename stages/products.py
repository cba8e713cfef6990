"""Matrix products into existing arrays, and the choice of the BLAS library that computes them.

[Note: one pool of BLAS threads] NumPy's and SciPy's wheels bring an OpenBLAS each, each with a pool of threads. After a
product, the threads of one pool spin for some milliseconds on the cores that the other pool needs next: a worker with
two CPUs was five times slower than one with one CPU. So if BLAS has several threads, all products go through SciPy's
OpenBLAS, and NumPy's gets one thread (coordinator.plan.blas_threads). With one thread each, NumPy's is as fast, and its
input gradient some 10 % faster. Products that are added to an array always go through SciPy's, since np.matmul cannot
add.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from stages.arrays import Array

_gemm: dict[str, Callable[..., Any]] = {}
_all_through_scipy = False


def load_blas() -> dict[str, Callable[..., Any]]:
    """Return SciPy's products by a dtype's `char`. Only the first call loads SciPy: commands that only read a job need
    none."""
    if not _gemm:
        from scipy.linalg import blas

        _gemm.update(f=blas.sgemm, d=blas.dgemm)  # a dtype's `name` takes as long to find as a small product
    return _gemm


def let_all_go_through_scipy(every: bool) -> bool:
    """Choose for this process whether all products go through SciPy; return the former choice. Must be called before
    any product whose exact bits matter."""
    global _all_through_scipy
    before, _all_through_scipy = _all_through_scipy, every
    return before


def multiply(a: Array, b: Array, out: Array) -> None:
    """out ← ab. `out` and `b` are C-contiguous (another `b` is copied); `a` is C-contiguous or the transpose of such an
    array."""
    if not _all_through_scipy:
        np.matmul(a, b, out=out)
        return
    transposed = not a.flags.c_contiguous
    result = (_gemm or load_blas())[out.dtype.char](
        1.0, b.T, a if transposed else a.T, trans_b=transposed, c=(into := out.T), overwrite_c=1
    )
    assert result is into, "BLAS worked on a copy: the output's memory is not C-contiguous"


def add_product(a: Array, b: Array, total: Array, *, accumulate: bool) -> None:
    """total ← ab, or (`accumulate`) total + ab: BLAS adds in the product itself. `a` and `total` are C-contiguous,
    `b` is the transpose of such an array. Computed on the transposes, which are Fortran-contiguous as BLAS needs."""
    into = total.T  # gemm(alpha, a, b, beta, c, trans_a, trans_b, overwrite_c): names cost half a microsecond
    result = (_gemm or load_blas())[total.dtype.char](1.0, b, a.T, 1.0 if accumulate else 0.0, into, 1, 0, 1)
    assert result is into, "BLAS worked on a copy: the gradient's memory is not C-contiguous"


def product_call(a: Array, b: Array, out: Array) -> Callable[[], object]:
    """Return a call that does what `multiply` does with these arrays."""
    return partial(multiply, a, b, out) if _all_through_scipy else partial(np.matmul, a, b, out)


def added_product_call(a: Array, b: Array, total: Array, *, accumulate: bool) -> Callable[[], object]:
    """Return a call that does what `add_product` does with these arrays."""
    into = total.T
    assert into.flags.f_contiguous, "BLAS would work on a copy: the gradient's memory is not C-contiguous"
    gemm = (_gemm or load_blas())[total.dtype.char]
    return partial(gemm, 1.0, b, a.T, 1.0 if accumulate else 0.0, into, 1, 0, 1)
