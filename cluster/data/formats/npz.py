"""NumPy's arrays: archives of them, .npz, and a pair of files, .npy."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from functools import partial
from typing import IO, Any, Literal

import numpy as np

from cluster.data.array_files import FileArray, large_array, npz_array
from cluster.data.content import AnyArray, Arrays
from cluster.data.temporary import temporary_file
from coordinator.job.data_section import ArraysSection
from coordinator.job.regular_files import too_large
from stages.errors import InvalidData

_INPUTS = ("x", "x_train", "train_x", "features", "inputs", "images", "data", "arr_0")
_TARGETS = ("y", "y_train", "train_y", "targets", "target", "labels", "label", "arr_1")
"""Names under which people save inputs and targets, in lower case. They are offered, never taken."""
_MOST_SHOWN = 8
_PACKED = 4


def read_npz(file: IO[bytes], source: str, given: ArraysSection | None, most_bytes: int | None = None) -> Arrays:
    """Return the arrays of inputs and targets in an open .npz file. `given` are their names; an archive that does not
    have them may call them x and y. A compressed array may have _PACKED times `most_bytes`, unpacked."""
    archive = np.load(file, allow_pickle=False)
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise InvalidData(
            f"{source}: holds a single array, must hold x and y; write it with numpy.savez(file, x=x, y=y)"
        )
    with archive:
        x, y = _name("x", given, archive.files), _name("y", given, archive.files)
        if x is None:
            raise InvalidData(f"{source}: has no array {given.x if given else 'x'}{offer(archive.files)}")
        inputs = _array(archive, x, file, source, most_bytes)
        targets = None if y is None else _array(archive, y, file, source, most_bytes)
        return Arrays(x=inputs, y=targets, names=tuple(archive.files))


def read_npy(file: IO[bytes], source: str, targets: IO[bytes] | None, targets_source: str) -> Arrays:
    """Return the inputs in an open .npy file, and the targets in another one."""
    y = None if targets is None else _single(targets, targets_source)
    return Arrays(x=_single(file, source), y=y, names=("x",))


def offer(names: Sequence[str]) -> str:
    """Return what to write for an archive whose arrays have other names than x and y."""
    if not names:
        return ", it is empty; write it with numpy.savez(file, x=x, y=y)"
    lower = {name.lower(): name for name in names}
    x, y = (next((lower[one] for one in known if one in lower), "NAME") for known in (_INPUTS, _TARGETS))
    shown = ", ".join(names[:_MOST_SHOWN]) + (", …" if len(names) > _MOST_SHOWN else "")
    return f", only {shown}; write data.arrays: {{x: {x}, y: {y}}}"


def _name(role: Literal["x", "y"], given: ArraysSection | None, names: Sequence[str]) -> str | None:
    own = role if given is None else given.x if role == "x" else given.y
    return next((name for name in (own, role) if name in names), None)


def _array(archive: Any, name: str, file: IO[bytes], source: str, most_bytes: int | None) -> AnyArray | FileArray:
    if most_bytes is not None:
        _require_size(archive.zip, name, source, _PACKED * most_bytes)
    try:
        return npz_array(archive, name, file, source, partial(temporary_file, source=source))
    except ValueError as error:
        raise _no_pickle(error, source, f"array {name}", f"numpy.savez(file, {name}=…)") from None


def _require_size(archive: zipfile.ZipFile, name: str, source: str, most_bytes: int) -> None:
    """Raise InvalidData if an array is compressed and has more than `most_bytes` unpacked. The archive reads no more of
    a member than it says that there is."""
    for key in (name, f"{name}.npy"):  # NumPy takes either
        member = archive.NameToInfo.get(key)
        if member is not None and member.compress_type != zipfile.ZIP_STORED and member.file_size > most_bytes:
            told = too_large(member.file_size, most_bytes).strerror
            raise InvalidData(f"{source}: array {name} {told}, decompressed")


def _single(file: IO[bytes], source: str) -> AnyArray | FileArray:
    try:
        found = large_array(file, source)
        return np.load(file, allow_pickle=False) if found is None else found
    except ValueError as error:
        raise _no_pickle(error, source, "it", "numpy.save(file, …)") from None


def _no_pickle(error: ValueError, source: str, what: str, how: str) -> Exception:
    if "allow_pickle" not in str(error):
        return error
    return InvalidData(
        f"{source}: {what} holds Python objects, which are not read, since reading them can run code; save numbers: "
        f"{how} of numpy.array(values, dtype='float32')"
    )
