"""Files of token numbers are read as they are needed, so that memory use does not grow with the file."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from cluster.data.files import open_source
from cluster.data.sources import load_data
from cluster.data.texts.token_files import open_tokens, require_below, vocabulary_size
from coordinator.job.spec import parse_job
from stages.data import Dataset
from stages.errors import InvalidData
from stages.file_numbers import FileNumbers
from stages.windows import Tokens, Windows
from tests.file_server import files_served

_MEASURE = """
import sys
import numpy as np
from cluster.data.sources import load_data
from coordinator.job.spec import parse_job
from stages.data import epoch_order
from stages.process_memory import status_bytes
from stages.spec import ModelSpec

spec = parse_job({
    "model": {
        "input": [256], "vocabulary": 50, "loss": "cross_entropy",
        "layers": [{"embedding": {"units": 4}}, {"linear": {"units": 50}}],
    },
    "data": {"source": sys.argv[1], "block": 256, "validation": 0.1},
    "training": {"steps": 1, "batch_size": 8, "optimizer": {"sgd": {"learning_rate": 0.1}}},
})
warm = load_data(spec.relocated({sys.argv[1]: sys.argv[2]}))
warm.fingerprint()
before = status_bytes("VmHWM")
data = load_data(spec)
data.fingerprint()
order = epoch_order(0, 0, len(data.train))
for batch in range(0, len(order), 64):
    assert data.train.inputs(order[batch : batch + 64]).shape[1] % 256 == 0
print(status_bytes("VmHWM") - before, data.nbytes)
"""


def _open(path: Path) -> Tokens:
    with open_source(str(path)) as file:
        return open_tokens(file, str(path))


@pytest.mark.parametrize("kind", ["bin", "npy"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str) -> None:
    """Reading 64 MiB from end to end three times, and in the order of an epoch, holds less than 16 MiB at a time."""
    for name, n in (("small", 2**16), ("large", 2**25)):
        tokens = (np.arange(n) % 50).astype("<u2")
        if kind == "bin":
            tokens.tofile(tmp_path / f"{name}.bin")
        else:
            np.save(tmp_path / f"{name}.npy", tokens)
    arguments = [sys.executable, "-c", _MEASURE, *(str(tmp_path / f"{name}.{kind}") for name in ("large", "small"))]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    grown, held = map(int, done.stdout.split())
    assert held == 0
    assert grown < 16 * 2**20


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<u4", "<i8", "|u1"])
def test_rows_and_checksums_are_those_of_an_array(tmp_path: Path, dtype: str) -> None:
    tokens = (np.arange(900) % 200).astype(dtype)
    np.save(tmp_path / "a.npy", tokens)
    found = _open(tmp_path / "a.npy")
    assert isinstance(found, FileNumbers)
    assert vocabulary_size(found, "a") == 200
    ours, theirs = (
        Dataset(x=Windows(part, 8, 8), y=Windows(part, 8, 8, shift=1)) for part in (found, np.array(tokens))
    )
    np.testing.assert_array_equal(ours.x[np.array([3, 7])], theirs.x[np.array([3, 7])])
    np.testing.assert_array_equal(ours.targets(slice(2, 5)), theirs.targets(slice(2, 5)))
    assert ours.fingerprint() == theirs.fingerprint()


def _check(path: Path) -> None:
    tokens = _open(path)
    vocabulary_size(tokens, str(path))
    require_below(tokens, 70, str(path))


def test_what_is_wrong_with_a_file_is_one_line_with_the_place(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    for array, told in (
        (np.arange(9.0), "must hold token numbers in one dimension, is of float64 [9]"),
        (np.zeros((3, 3), np.uint16), "must hold token numbers in one dimension, is of uint16 [3, 3]"),
        (np.array([3, 1, -2]), "token -2 at position 3 is negative"),
        (
            np.array([3, 2**32 - 1], np.uint32),
            "token 4294967295 at position 2 is too large, must be below 2,147,483,647",
        ),
        (np.array([3, 1, 70, 90]), "token 70 at position 3 is not in the vocabulary of 70 tokens"),
    ):
        np.save(path, array)
        with pytest.raises(InvalidData) as refused:
            _check(path)
        assert str(refused.value) == f"{path}: {told}"
    whole = path.read_bytes()
    for content, told in (
        (whole[:-8], "is damaged: its header says 4 numbers, but the file holds 3"),
        (whole + bytes(8), "is damaged: its header says 4 numbers, but the file holds 5"),
        (whole.replace(b"(4,), }", b"(-4,),}"), "is damaged: its header says -4 numbers, but the file holds 4"),
        (whole.replace(b"(4,)", b"(4,("), "cannot be read as .npy"),
        (whole.replace(b"'descr'", b"[descr]"), "cannot be read as .npy"),
        (whole.replace(b"'shape': (4,)", b"[[]]: 1, 2: 3"), "cannot be read as .npy"),
        (whole.replace(b"{'descr'", b"{" + b"(" * 7), "cannot be read as .npy"),
    ):
        path.write_bytes(content)
        with pytest.raises(InvalidData, match=told) as refused:
            _open(path)
        assert len(str(refused.value).splitlines()) == 1
    path.write_bytes(whole)
    for content, told in ((b"no", "cannot be read as .npy"), (path.read_bytes()[:-3], "must hold numbers of 64 bits")):
        path.write_bytes(content)
        with pytest.raises(InvalidData, match=told):
            _open(path)


def test_a_file_that_is_cut_short_later_is_one_line_and_no_signal(tmp_path: Path) -> None:
    """The file was mapped: the process that read a row of it was killed by SIGBUS, without a word."""
    (np.arange(90_000) % 200).astype("<u2").tofile(tmp_path / "a.bin")
    rows = Windows(_open(tmp_path / "a.bin"), 8, 8)
    assert rows[np.array([9_000])].tolist() == [[n % 200 for n in range(72_000, 72_008)]]
    os.truncate(tmp_path / "a.bin", 1000)
    with pytest.raises(InvalidData, match=r"a.bin: was cut short while it was in use, from 180,000 bytes to 1,000;"):
        rows[np.array([9_000])]


def test_an_empty_file_has_no_tokens(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"")
    assert len(_open(tmp_path / "a.bin")) == 0


@pytest.mark.parametrize("name", ["a.bin", "a.npy"])
def test_tokens_of_a_url_are_read(tmp_path: Path, name: str) -> None:
    tokens = np.arange(900, dtype="<u2")
    np.save(tmp_path / "a.npy", tokens)
    tokens.tofile(tmp_path / "a.bin")
    with files_served(tmp_path) as address:
        job = {
            "model": {
                "layers": [{"embedding": {"units": 4}}, {"linear": {"units": "classes"}}],
                "loss": "cross_entropy",
            },
            "data": {"source": f"{address}/{name}", "block": 8},
            "training": {"steps": 1, "batch_size": 2, "optimizer": {"sgd": {"learning_rate": 0.1}}},
        }
        data = load_data(parse_job(job))
    assert data.train.x[1:2].tolist() == [list(range(8, 16))]
    assert data.spec.model_spec().vocabulary == 900


def test_a_slice_of_rows_costs_no_more_than_its_rows() -> None:
    """Of ten million rows, a list of all their numbers would take 80 MB."""
    rows = Windows(np.zeros(10_000_020, np.uint16), 8, 1)
    tracemalloc.start()
    try:
        assert rows[5:7].shape == (2, 8)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(Windows(np.arange(12), 3, 2)[-1:-4:-2], [[8, 9, 10], [4, 5, 6]])
