"""Compressed arrays, images and URLs that are large go to disk: the same rows, the same errors, bounded memory."""

from __future__ import annotations

import functools
import http.server
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
import pytest
from PIL import Image

from cluster.data import array_files, opening, temporary, urls
from cluster.data.array_files import FileArray
from cluster.data.content import Arrays
from cluster.data.files import read_source
from cluster.data.rules import SourceRules
from cluster.data.sources import load_data
from stages.errors import InvalidData
from stages.file_numbers import FileRows
from tests.cluster.test_large_arrays import ARRAYS, job


@pytest.fixture
def all_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever has 64 bytes goes to disk."""
    for module in (array_files, temporary, opening):
        monkeypatch.setattr(module, "LARGE", 64)


@pytest.mark.usefixtures("all_large")
@pytest.mark.parametrize("kind", ARRAYS)
def test_compressed_arrays_give_the_rows_of_those_that_are_not(tmp_path: Path, kind: str) -> None:
    np.savez(tmp_path / "plain.npz", **ARRAYS[kind])
    np.savez_compressed(tmp_path / "packed.npz", **ARRAYS[kind])
    plain, packed = load_data(job(tmp_path / "plain.npz", kind)), load_data(job(tmp_path / "packed.npz", kind))
    assert isinstance(packed.train.x, FileRows)
    assert packed.fingerprint() == plain.fingerprint()
    assert packed.train.x[:].tobytes() == plain.train.x[:].tobytes()
    assert packed.train.y[:].tobytes() == plain.train.y[:].tobytes()
    assert packed.nbytes == plain.nbytes
    assert "is on disk while it is used, in a temporary file without a name" in "\n".join(packed.said)


@pytest.mark.usefixtures("all_large")
def test_a_damaged_compressed_array_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, **ARRAYS["classes"])
    content = bytearray(path.read_bytes())
    member = zipfile.ZipFile(path).getinfo("x.npy")
    content[member.header_offset + member.compress_size // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(InvalidData, match=r"a.npz: cannot be read as .npz: "):
        load_data(job(path))


@pytest.mark.usefixtures("all_large")
def test_what_a_job_of_another_host_unpacks_has_a_limit(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((10_000, 6)), y=np.zeros(10_000, int))
    with pytest.raises(InvalidData, match=r"array x has 480,128 bytes or more, at most 400,000 may be read, decompr"):
        load_data(job(tmp_path / "a.npz"), SourceRules(most_bytes=100_000))


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": np.zeros((2, 6)), "y": np.zeros(60_000)},
        {"x": np.asfortranarray(np.zeros((10_000, 6))), "y": np.zeros(2)},
        {"x": np.zeros((10_000, 6)), "y": np.zeros(2)},
    ],
    ids=["one number a row", "column after column", "too small for the disk"],
)
@pytest.mark.parametrize("ending", [".npy", ""])
def test_the_limit_holds_for_arrays_that_are_read_into_memory(
    tmp_path: Path, arrays: dict[str, Any], ending: str
) -> None:
    """They were unpacked whole, however large."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}{ending}", "w") as member:
                np.lib.format.write_array(member, array)
    with pytest.raises(
        InvalidData, match=r"array [xy] has 480,128 bytes or more, at most 400,000 may be read, decompressed$"
    ):
        load_data(job(tmp_path / "a.npz"), SourceRules(most_bytes=100_000))


def test_arrays_of_one_number_a_row_and_columns_are_read_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(array_files, "LARGE", 64)
    np.savez_compressed(tmp_path / "a.npz", x=np.asfortranarray(np.ones((99, 6))), y=np.ones(99, int))
    found = read_source(str(tmp_path / "a.npz"))
    assert isinstance(found, Arrays)
    assert isinstance(found.x, np.ndarray)
    assert isinstance(found.y, np.ndarray)


def test_many_images_go_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for k in range(12):
        (tmp_path / "ab"[k % 2]).mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "ab"[k % 2] / f"{k}.png")
    held = read_source(f"{tmp_path}/")
    monkeypatch.setattr(temporary, "LARGE", 200)
    stored = read_source(f"{tmp_path}/")
    assert isinstance(held, Arrays)
    assert isinstance(stored, Arrays)
    assert isinstance(stored.x, FileArray)
    assert isinstance(held.x, np.ndarray)
    assert np.concatenate([part for _, part, _ in stored.x.parts()]).tobytes() == held.x.tobytes()
    assert (stored.x.shape, stored.shape, stored.classes) == (held.x.shape, held.shape, held.classes)
    assert "without a name" in "\n".join(stored.notes)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A server of the test's folder."""

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=tmp_path)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("all_large")
def test_a_large_url_is_copied_to_disk_and_read_as_a_file(tmp_path: Path, url: str) -> None:
    np.savez(tmp_path / "a.npz", **ARRAYS["classes"])
    (tmp_path / "a.csv").write_text("a,y\n" + "".join(f"{k},{k % 3}\n" for k in range(50)))
    data = load_data(job(f"{url}/a.npz"))  # type: ignore[arg-type]
    assert isinstance(data.train.x, FileRows)
    assert data.fingerprint() == load_data(job(tmp_path / "a.npz")).fingerprint()
    here, there = read_source(str(tmp_path / "a.csv")), read_source(f"{url}/a.csv")
    assert [column.to_pylist() for column in there.columns.values()] == [  # type: ignore[union-attr]
        column.to_pylist()
        for column in here.columns.values()  # type: ignore[union-attr]
    ]


@pytest.mark.usefixtures("all_large")
def test_a_disk_that_gets_full_while_a_url_is_copied_is_told(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.csv").write_text("a,y\n" + "1,2\n" * 100)
    monkeypatch.setattr(urls, "_PART_BYTES", 64)
    free = [2**40] * 4
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free.pop() if free else 0))
    with pytest.raises(InvalidData) as refused:
        read_source(f"{url}/a.csv")
    assert str(refused.value) == (
        f"{url}/a.csv: its numbers need a temporary file of 256 B, but {temporary.folder_on_disk()} has 0 B free; name "
        "another folder in TMPDIR, or use fewer columns"
    )


@pytest.mark.usefixtures("all_large")
def test_a_disk_that_is_full_at_the_end_of_a_url_is_told(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.csv").write_text("a,y\n" + "1,2\n" * 100)
    monkeypatch.setattr(opening, "moved_to_disk", on_a_full_disk)
    with pytest.raises(InvalidData, match=rf"^{url}/a.csv: cannot be read: No space left on device$"):
        read_source(f"{url}/a.csv")


def on_a_full_disk(content: BytesIO, _: str) -> IO[bytes]:
    """Return a file with these bytes in its buffer, which cannot be written."""
    file = open("/dev/full", "r+b")  # noqa: SIM115
    file.write(content.getbuffer())
    return file


def test_a_large_compressed_array_takes_no_memory(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((2_000_000, 6)), y=np.zeros(2_000_000, np.int8))
    script = (
        "from pathlib import Path\n"
        "import resource, cluster.data.formats.npz\n"
        "from cluster.data.sources import load_data\n"
        "from tests.cluster.test_unpacked_arrays import job\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"data = load_data(job(Path({str(tmp_path / 'a.npz')!r})))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 90 * 1024, "KiB: labels and the numbers of rows, and not the array's 92 MiB"
