"""Tables that stay on disk: the same rules, numbers and weights to the bit, and nothing left over."""

from __future__ import annotations

import contextlib
import os
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.data import temporary
from cluster.data.checks import Checking
from cluster.data.files import Table, read_source
from cluster.data.formats import arrow_csv, stored_text
from cluster.data.formats.lazy_columns import LazyColumns
from cluster.data.formats.stored_text import StoredColumns, stored_columns, whole_lines
from cluster.data.questions import load_questions
from cluster.data.sources import JobData, load_arrays, load_data
from coordinator.job.spec import JobSpec, parse_job
from coordinator.plan.blueprint import make_blueprint
from coordinator.train.local import LocalWorkers
from coordinator.train.parity import compare, train_pipeline
from coordinator.train.reference import train_reference
from stages.errors import InvalidData
from stages.file_numbers import FileRows

pd = pytest.importorskip("pandas", reason="pip install 'pipetrain[pandas]'")
RNG = np.random.default_rng(5)
N = 173


def table() -> Any:
    age = RNG.normal(40, 12, N)
    age[RNG.permutation(N)[:19]] = np.nan
    label = RNG.choice(["yes", "no", "perhaps"], N).astype(object)
    label[7] = None
    return pd.DataFrame(
        {
            "age": age,
            "mass": RNG.normal(4000, 800, N).astype(np.float32),
            "rings": RNG.integers(0, 90, N),
            "seen": RNG.integers(0, 2, N).astype(bool),
            "island": RNG.choice(["a", "b", "c"], N),
            "label": label,
        }
    )


TABLE = table()
FILES: dict[str, Any] = {
    "t.csv": lambda path: TABLE.to_csv(path, index=False),
    "t.parquet": lambda path: TABLE.to_parquet(path, index=False, row_group_size=40),
    "t.feather": lambda path: TABLE.to_feather(path, chunksize=40),
    "t.arrow": lambda path: TABLE.to_feather(path, compression="uncompressed"),
}


def job(source: Path, loss: str = "cross_entropy", **pipeline: Any) -> JobSpec:
    columns = {"mass": {"scale": "minmax"}, "age": {"missing": "median"}}
    units: Any = "classes" if loss == "cross_entropy" else 2
    return parse_job(
        {
            "seed": 7,
            "model": {"layers": [{"linear": {"units": 5}}, "tanh", {"linear": {"units": units}}], "loss": loss},
            "data": {
                "source": str(source),
                "target": "label" if loss == "cross_entropy" else ["rings", "mass"],
                "columns": columns if loss == "cross_entropy" else {"label": "drop", **columns},
                "missing": "drop",
            },
            "training": {
                "epochs": 2,
                "batch_size": 20,
                "micro_batches": 3,
                "optimizer": {"adam": {"learning_rate": 0.01}},
            },
            "pipeline": pipeline,
        }
    )


def both(monkeypatch: pytest.MonkeyPatch, spec: JobSpec) -> tuple[JobData, JobData]:
    """Return the data of a table that counts as large, and the same data in memory."""
    found = []
    for least in (1, 2**40):
        monkeypatch.setattr(temporary, "LARGE_TABLE", least)
        found.append(load_data(spec))
    return found[0], found[1]


def open_files(folder: Path) -> list[str]:
    """Return the files of a folder that this process has open, with a name or without."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [name for name in found if name.startswith(f"{folder}/")]


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every table counts as large."""
    monkeypatch.setattr(temporary, "LARGE_TABLE", 1)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize(("schedule", "stages"), [("gpipe", 1), ("1f1b", 2), ("zb-h2", 3)])
def test_rules_and_weights_are_bitwise_those_of_the_same_table_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, loss: str, schedule: str, stages: int
) -> None:
    FILES[name](tmp_path / name)
    spec = job(tmp_path / name, loss, schedule=schedule, stages=stages)
    stored, held = both(monkeypatch, spec)
    assert isinstance(stored.train.x, FileRows)
    assert isinstance(held.train.x, np.ndarray)
    assert stored.preprocessing is not None
    assert held.preprocessing is not None
    assert stored.preprocessing.document() == held.preprocessing.document()
    assert stored.spec == held.spec
    for part in ("train", "validation"):
        ours, theirs = getattr(stored, part), getattr(held, part)
        assert np.asarray(ours.x).tobytes() == theirs.x.tobytes()
        assert ours.y.tobytes() == theirs.y.tobytes()
    blueprint = make_blueprint(held.spec, len(held.train))
    with contextlib.closing(LocalWorkers(blueprint, train=stored.train)) as workers:
        found = train_pipeline(blueprint, workers, stored.train, 10)
    assert compare(found, train_reference(held.spec, held.train, 10)).equal


@pytest.mark.usefixtures("large")
def test_other_files_go_through_the_same_rules(tmp_path: Path) -> None:
    for name, write in FILES.items():
        write(tmp_path / name)
    spec = job(tmp_path / "t.parquet")
    second = load_data(spec.replace(data__validation=str(tmp_path / "t.csv")))
    assert isinstance(second.validation.x, FileRows)
    np.testing.assert_allclose(second.validation.x, second.train.x, rtol=1e-5, atol=1e-6)  # mass is float32 in one
    spec = second.spec
    other = load_arrays(spec, str(tmp_path / "t.csv"), second.preprocessing)
    assert np.asarray(other.x).tobytes() == np.asarray(second.validation.x).tobytes()
    assert isinstance(load_questions(spec, str(tmp_path / "t.csv"), second.preprocessing).x, FileRows)


@pytest.mark.parametrize("least", [1, 2**40])
@pytest.mark.parametrize(("column", "row", "value"), [("mass", 172, np.inf), ("age", 3, -np.inf), ("rings", 99, 1e300)])
def test_problems_are_those_of_a_table_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: int, column: str, row: int, value: float
) -> None:
    monkeypatch.setattr(temporary, "LARGE_TABLE", least)
    changed = TABLE.astype({"mass": float, "rings": float})
    changed.loc[row, column] = value
    changed.to_parquet(tmp_path / "t.parquet", index=False)
    spec = job(tmp_path / "t.parquet").replace(data__scale="none")
    with pytest.raises(InvalidData) as refused:
        load_data(spec)
    right = "a finite number, or empty" if np.isinf(value) else "small enough for float32"
    (line,) = refused.value.problems
    assert line.startswith(f"{tmp_path}/t.parquet: row {row + 1}, column '{column}': got {value:g}, must be {right}")


@pytest.mark.parametrize("name", [name for name in FILES if name != "t.csv"])
@pytest.mark.usefixtures("large")
def test_columns_of_a_large_file_are_read_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Row groups have 40 rows; only the columns in use are read, each once."""
    read: list[str] = []
    real = LazyColumns.pop

    def pop(columns: LazyColumns, name: str) -> Any:
        read.append(name)
        return real(columns, name)

    monkeypatch.setattr(LazyColumns, "pop", pop)
    FILES[name](tmp_path / name)
    load_data(job(tmp_path / name).replace(data__columns={"rings": "drop", "age": {"missing": "mean"}}))
    assert read == ["age", "mass", "seen", "island", "label"]


def test_a_large_csv_goes_to_disk_block_by_block_and_gives_the_same_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A column of whole numbers whose last cell is a fraction: a type of the first block that does not fit is found."""
    many = pd.concat([TABLE] * 1000, ignore_index=True)
    many["late"] = np.arange(len(many)).astype(object)
    many.to_csv(tmp_path / "a.csv", index=False)
    many.loc[len(many) - 1, "late"] = 0.5
    many.to_csv(tmp_path / "b.csv", index=False)
    stored: list[int] = []

    def counted(batches: Any, n_bytes: int, source: str) -> StoredColumns:
        stored.append(n_bytes)
        return stored_columns(batches, n_bytes, source)

    monkeypatch.setattr(arrow_csv, "stored_columns", counted)
    for name in ("a.csv", "b.csv"):
        found = []
        for least in (2**40, 1):
            monkeypatch.setattr(arrow_csv, "LARGE_TEXT", least)
            found.append(read_source(str(tmp_path / name)))
        held, mapped = found
        assert isinstance(held, Table)
        assert isinstance(mapped, Table)
        assert list(held.columns) == list(mapped.columns)
        assert all(column.equals(mapped.columns[name]) for name, column in held.columns.items())
        assert (mapped.n_rows, mapped.notes) == (held.n_rows, held.notes)
    assert len(stored) == 2


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
@given(lines=st.lists(st.integers(0, 40), min_size=1, max_size=30), size=st.integers(1, 50))
def test_a_text_is_read_in_parts_of_whole_lines(end: str, last: bool, lines: list[int], size: int) -> None:
    """Lines of 0 to 40 characters; the last part has the rest if a line is longer."""
    text = end.join(["x" * n for n in lines] + [""] * last).encode()
    with mock.patch.object(stored_text, "_PART_BYTES", size):
        parts = [part.to_pybytes() for part in whole_lines(pa.BufferReader(text))]
    assert b"".join(parts) == text
    assert all(part.endswith(end.encode()) and len(part) <= size for part in parts[:-1])
    assert not any(part.startswith(b"\n") and before.endswith(b"\r") for before, part in pairwise(parts))


@pytest.mark.usefixtures("large")
def test_the_files_on_disk_have_no_name_and_end_with_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporary, "folder_on_disk", lambda: tmp_path / "disk")
    (tmp_path / "disk").mkdir()
    FILES["t.parquet"](tmp_path / "t.parquet")
    data = load_data(job(tmp_path / "t.parquet"))
    assert not list((tmp_path / "disk").iterdir())
    assert len(open_files(tmp_path / "disk")) == 1  # the inputs; the file of the columns is gone
    assert data.train.inputs(np.array([5, 2])).shape == (7, 2)
    assert data.said[-1] == (
        f"its inputs (4.7 KiB) are on disk while they are used, in a file of {tmp_path}/disk without a name"
    )
    del data
    assert not open_files(tmp_path / "disk")


@pytest.mark.usefixtures("large")
def test_a_plan_writes_no_inputs_and_counts_no_table(tmp_path: Path) -> None:
    FILES["t.parquet"](tmp_path / "t.parquet")
    data, planned = (load_data(job(tmp_path / "t.parquet"), None, Checking(whole=whole)) for whole in (True, False))
    assert (planned.nbytes, planned.reading_bytes, planned.spec) == (data.nbytes, data.reading_bytes, data.spec)
    assert planned.nbytes == (4 + 8) * (len(data.train) + len(data.validation))  # numbers of the rows, and labels
    with pytest.raises(InvalidData, match="was cut short"):
        planned.train.inputs(np.array([0]))


@pytest.mark.usefixtures("large")
def test_a_disk_without_room_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FILES["t.parquet"](tmp_path / "t.parquet")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=0))
    with pytest.raises(InvalidData) as refused:
        load_data(job(tmp_path / "t.parquet"))
    assert str(refused.value) == (
        f"{tmp_path}/t.parquet: its numbers need a temporary file of 6.8 KiB, but {temporary.folder_on_disk()} has 0 B "
        "free; name another folder in TMPDIR, or use fewer columns"
    )


def test_large_temporary_files_are_not_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in /dev/shm takes the memory that it is to save."""
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/dev/shm")
    assert temporary.folder_on_disk() == Path("/var/tmp")
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert temporary.folder_on_disk() == tmp_path
