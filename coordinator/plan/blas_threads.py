"""How many threads BLAS has, and in which library: see stages.products, [Note: one pool of BLAS threads].

Worker, `--local`, reference and measured costs all take the number of threads from `blas_threads`, which depends on the
job alone, so that their results are the same to the bit.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from threadpoolctl import ThreadpoolController

from coordinator.job.spec import JobSpec
from stages.products import let_all_go_through_scipy, load_blas

_WORTH_THREADS = 1 << 20
"""From this many multiplications in a product on, several threads are faster; below, they wait for each other."""


def blas_threads(spec: JobSpec) -> int:
    """Return the threads of a worker's products: its CPUs, or one if the products of all layers are small."""
    rows = -(-spec.training.batch_size // spec.training.micro_batches)
    ops = spec.model_spec().network.ops
    largest = max((op.layer.cost().products[0] / 2 * rows for op in ops if op.layer.parameters), default=0)
    return spec.resources.cpus_per_worker if largest >= _WORTH_THREADS else 1


class BlasThreads:
    """A context manager that limits the BLAS of products to `threads` threads (None: no change) and every other BLAS to
    one thread. `close` restores the former numbers."""

    def __init__(self, threads: int | None) -> None:
        load_blas()  # so that the controller finds it
        found = ThreadpoolController().select(user_api="blas")
        paths = [library.filepath for library in found.lib_controllers]
        ours = [path for path in paths if _serves_scipy(path)] or paths
        self._limits = ExitStack()
        # the inner call chooses now and returns the former choice, which `close` restores
        self._limits.callback(let_all_go_through_scipy, let_all_go_through_scipy(threads != 1))
        if threads is not None:
            self._limits.enter_context(found.select(filepath=ours).limit(limits=threads))
        others = [path for path in paths if path not in ours]
        if others:
            self._limits.enter_context(found.select(filepath=others).limit(limits=1))

    def close(self) -> None:
        """Restore the former numbers of threads."""
        self._limits.close()

    def __enter__(self) -> BlasThreads:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _serves_scipy(path: str) -> bool:
    """Whether a library comes from SciPy's wheel."""
    import scipy

    folder = Path(scipy.__file__).parent
    return any(parent in (folder, folder.with_name("scipy.libs")) for parent in Path(path).parents)
