"""Archives of NumPy's arrays: .npz."""

from __future__ import annotations

from typing import IO

import numpy as np

from cluster.data.array_files import npz_array
from cluster.data.content import Arrays
from stages.errors import InvalidData


def read_npz(file: IO[bytes], source: str) -> Arrays:
    """Return the arrays x and y of an open .npz file."""
    archive = np.load(file, allow_pickle=False)
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise InvalidData(
            f"{source}: holds a single array, must hold x and y; write it with numpy.savez(file, x=x, y=y)"
        )
    with archive:
        if "x" not in archive.files:
            raise InvalidData(f"{source}: has no array x, only {', '.join(archive.files) or 'nothing'}")
        x = npz_array(archive, "x", file, source)
        return Arrays(x=x, y=npz_array(archive, "y", file, source) if "y" in archive.files else None)
