"""Arrays that stay in their file: the same weights to the bit, the same errors, and bounded memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.data import array_files
from cluster.data.checks import Checking
from cluster.data.questions import load_questions
from cluster.data.sources import JobData, load_arrays, load_data
from coordinator.job.spec import JobSpec, parse_job
from coordinator.plan.blueprint import make_blueprint
from coordinator.train.local import LocalWorkers
from coordinator.train.parity import compare, train_pipeline
from coordinator.train.reference import train_reference
from coordinator.train.rows import JudgedEvaluation
from coordinator.train.trainer import Trainer
from stages.data import train_validation_split
from stages.errors import InvalidData, StageFailed
from stages.file_numbers import FileNumbers, FileRows
from tests.jobs import pipetrain_here

RNG = np.random.default_rng(3)
ARRAYS: dict[str, dict[str, Any]] = {
    "classes": {"x": RNG.normal(size=(91, 6)), "y": RNG.integers(0, 4, 91)},
    "numbers": {"x": RNG.integers(0, 255, (91, 2, 3)).astype(np.uint8), "y": RNG.normal(size=(91, 4)).astype(">f4")},
    "tokens": {"x": RNG.integers(0, 9, (91, 6)).astype(np.uint16), "y": RNG.integers(0, 9, (91, 6))},
}
LAYERS: dict[str, list[Any]] = {
    "classes": [{"linear": {"units": 7}}, "relu", {"linear": {"units": 5}}, "tanh", {"linear": {"units": 4}}],
    "tokens": [{"embedding": {"units": 8}}, "positions", {"transformer": {"heads": 2}}, {"linear": {"units": 9}}],
}


def job(source: Path, kind: str = "classes", **pipeline: Any) -> JobSpec:
    shape = {"input": [2, 3] if kind == "numbers" else [6], **({"vocabulary": 9} if kind == "tokens" else {})}
    layers = LAYERS.get(kind, ["flatten", *LAYERS["classes"]])
    loss = "mse" if kind == "numbers" else "cross_entropy"
    return parse_job(
        {
            "seed": 7,
            "model": {**shape, "layers": layers, "loss": loss},
            "data": {"source": str(source)},
            "training": {
                "epochs": 1,
                "batch_size": 20,
                "micro_batches": 3,
                "optimizer": {"adam": {"learning_rate": 0.01}},
            },
            "pipeline": pipeline,
        }
    )


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every array counts as large."""
    monkeypatch.setattr(array_files, "LARGE", 1)


def both(monkeypatch: pytest.MonkeyPatch, spec: JobSpec) -> tuple[JobData, JobData]:
    """Return the data read from the file as it is needed, and the same data in memory."""
    found = []
    for least in (1, 2**40):
        monkeypatch.setattr(array_files, "LARGE", least)
        found.append(load_data(spec))
    return found[0], found[1]


def problem(spec: JobSpec) -> str:
    with pytest.raises(InvalidData) as caught:
        load_data(spec)
    (line,) = caught.value.problems
    return line


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize(("schedule", "stages"), [("gpipe", 1), ("1f1b", 2), ("interleaved-1f1b", 3), ("zb-h2", 4)])
def test_weights_are_bitwise_those_of_the_same_rows_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, schedule: str, stages: int
) -> None:
    """Two epochs, so that two permutations are read; evaluations give the same too."""
    np.savez(tmp_path / "a.npz", **ARRAYS[kind])
    spec = job(tmp_path / "a.npz", kind, schedule=schedule, stages=stages).replace(training__epochs=2)
    filed, held = both(monkeypatch, spec)
    assert isinstance(filed.train.x, FileRows)
    assert isinstance(held.train.x, np.ndarray)
    assert isinstance(filed.train.y, FileRows) == (kind != "classes")
    blueprint = make_blueprint(spec, len(filed.train))
    with contextlib.closing(LocalWorkers(blueprint, train=filed.train, validation=filed.validation)) as workers:
        found = train_pipeline(blueprint, workers, filed.train, 8)
    assert compare(found, train_reference(spec, held.train, 8)).equal
    losses = []
    for data in (filed, held):
        with contextlib.closing(LocalWorkers(blueprint, train=data.train, validation=data.validation)) as workers:
            rows = Trainer(blueprint, workers, train_rows=73, validation_rows=18).rows()
            losses.append([(type(row), row.step, row.loss) for row in rows])
    assert [kind for kind, *_ in losses[0]].count(JudgedEvaluation) == 2
    assert losses[0] == losses[1]


def test_the_split_and_second_sources_and_inputs_are_those_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "a.npz", **ARRAYS["classes"])
    spec = job(tmp_path / "a.npz")
    filed, held = both(monkeypatch, spec)
    train, _ = train_validation_split(91, 0.2, 7)
    np.testing.assert_array_equal(filed.train.x[slice(None)], ARRAYS["classes"]["x"][train].astype(np.float32))
    for part in ("train", "validation"):
        ours, theirs = getattr(filed, part), getattr(held, part)
        np.testing.assert_array_equal(ours.x[slice(None)], theirs.x)
        np.testing.assert_array_equal(ours.targets(slice(3, 9)), theirs.targets(slice(3, 9)))
    second = load_data(spec.replace(data__validation=str(tmp_path / "a.npz")))
    assert second.validation.x[slice(None)].tolist() == second.train.x[slice(None)].tolist()
    monkeypatch.setattr(array_files, "LARGE", 1)
    x = load_questions(spec, str(tmp_path / "a.npz"), None).x
    assert isinstance(x, FileRows)
    assert x.shape == (91, 6)
    assert isinstance(load_arrays(spec, str(tmp_path / "a.npz")).x, FileRows)


@pytest.mark.usefixtures("large")
def test_what_stays_in_the_file_is_said_and_counted_as_batches(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **ARRAYS["numbers"])
    data = load_data(job(tmp_path / "a.npz", "numbers"))
    assert [line.split(": ")[0] for line in data.said[1:]] == [
        f"{name} has {taken} and stays in the file" for name, taken in (("x", "546 B"), ("y", "1.4 KiB"))
    ]
    assert data.said[0] == "inputs: 6 numbers a row (x) · target: 4 numbers a row (y) · 73 rows train, 18 validation"
    assert load_data(job(tmp_path / "a.npz", "numbers"), None, Checking(whole=False)).said == data.said  # of a plan
    assert data.nbytes == 4 * 91  # the numbers of the rows
    assert data.reading_bytes == 8 * 73 + 18 * (6 + 4) * 4  # an epoch's order, and one part of an evaluation


@pytest.mark.parametrize("least", [1, 2**40])
@pytest.mark.parametrize(
    ("kind", "name", "value", "told"),
    [
        ("classes", "x", np.nan, "x[90, 5] is nan; remove the row or fill the value in"),
        ("classes", "x", 1e300, "x[90, 5] is 1e+300, too large for float32; scale it or use float64"),
        ("numbers", "y", np.inf, "y[90, 3] is inf; remove the row or fill the value in"),
        ("tokens", "x", 9, "token 9 in x[90, 5] is not in the vocabulary of 9 tokens; they are numbered from 0"),
        (
            "tokens",
            "y",
            -1,
            "label -1 in y[90, 5] is not a class from 0 to 8; number the classes from 0 or give the last layer more "
            "units",
        ),
    ],
)
def test_the_last_number_is_checked_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: int, kind: str, name: str, value: float, told: str
) -> None:
    """The parts of the file are checked one by one; the place is that in the whole array."""
    monkeypatch.setattr(array_files, "LARGE", least)
    monkeypatch.setattr("stages.file_numbers._PART_BYTES", 100)
    arrays = {key: array.copy() for key, array in ARRAYS[kind].items()}
    arrays[name].reshape(91, -1)[-1, -1] = value
    np.savez(tmp_path / "a.npz", **arrays)
    assert problem(job(tmp_path / "a.npz", kind)) == f"{tmp_path}/a.npz: {told}"


@pytest.mark.usefixtures("large")
def test_what_cannot_stay_in_the_file_is_read_into_memory(tmp_path: Path) -> None:
    x, y = ARRAYS["classes"]["x"], ARRAYS["classes"]["y"]
    spec = job(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", x=np.asfortranarray(x), y=y)
    assert isinstance(load_data(spec).train.x, np.ndarray)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    assert isinstance(load_data(spec).train.x, FileRows)
    for wrong, told in ((x[:, :5], "has 5 numbers a row in x"), (x[:0], "holds no rows"), (x[:9], "x has 9 rows")):
        np.savez(tmp_path / "a.npz", x=wrong, y=y)
        assert told in problem(spec)


@pytest.mark.usefixtures("large")
def test_a_damaged_archive_is_found_by_its_own_checksum(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **ARRAYS["classes"])
    content = bytearray((tmp_path / "a.npz").read_bytes())
    place = content.index(ARRAYS["classes"]["x"].tobytes()) + 9
    content[place] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    assert problem(job(tmp_path / "a.npz")) == (
        f"{tmp_path}/a.npz: is damaged: the bytes of an array have another checksum"
    )


@pytest.mark.usefixtures("large")
def test_a_change_of_any_number_changes_the_fingerprint(tmp_path: Path) -> None:
    prints = []
    for place in (None, (0, 0), (90, 5)):
        arrays = {name: array.copy() for name, array in ARRAYS["classes"].items()}
        if place is not None:
            arrays["x"][place] += 1
        np.savez(tmp_path / "a.npz", **arrays)
        prints += [load_data(job(tmp_path / "a.npz")).fingerprint() for _ in range(2)]
    assert len(set(prints)) == 3
    assert prints[::2] == prints[1::2]


def test_a_file_that_this_machine_has_checked_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers read the first part of it, and the whole file if it is another, or if it was changed just now."""
    monkeypatch.setattr(array_files, "LARGE", 1)
    monkeypatch.setattr("stages.file_numbers._PART_BYTES", 100)
    parts: list[int] = []
    real = FileNumbers.between

    def between(numbers: FileNumbers, start: int, stop: int, dtype: np.dtype[Any]) -> Any:
        parts.append(start)
        return real(numbers, start, stop, dtype)

    monkeypatch.setattr(FileNumbers, "between", between)
    np.savez(tmp_path / "a.npz", **ARRAYS["numbers"])
    spec = job(tmp_path / "a.npz", "numbers")
    monkeypatch.setattr("stages.file_numbers._LATELY_NS", 3600 * 10**9)
    assert load_data(spec).checked == {}  # it may be changed within the step of the file system's clock
    monkeypatch.setattr("stages.file_numbers._LATELY_NS", 0)
    first = load_data(spec)
    assert len(first.checked) == 2
    parts.clear()
    again = load_data(spec, None, Checking(known=first.checked))
    assert parts == [0, 0]
    assert again.fingerprint() == first.fingerprint()
    assert load_data(spec, None, Checking(whole=False)).checked == {}
    for written in (False, True):
        if written:
            np.savez(tmp_path / "a.npz", **ARRAYS["numbers"])
        else:
            os.utime(tmp_path / "a.npz")
        parts.clear()
        load_data(spec, None, Checking(known=first.checked))
        assert len(parts) > 20
    other = spec.replace(precision="float64")
    parts.clear()
    load_data(other, None, Checking(known=load_data(spec).checked))
    assert len(parts) > 40


@pytest.mark.usefixtures("large")
def test_a_file_that_is_cut_short_during_training_is_one_line_of_the_first_stage(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **ARRAYS["classes"])
    spec = job(tmp_path / "a.npz", stages=2)
    data, blueprint = load_data(spec), make_blueprint(spec, 73)
    with contextlib.closing(LocalWorkers(blueprint, train=data.train)) as workers:
        with (tmp_path / "a.npz").open("r+b") as file:
            file.truncate(1000)
        with pytest.raises(StageFailed) as failed:
            train_pipeline(blueprint, workers, data.train, 2)
    assert f"{tmp_path}/a.npz: was cut short while it was in use" in str(failed.value)
    assert len(str(failed.value).splitlines()) == 1
    assert "Traceback" not in failed.value.traceback  # a user's mistake needs none


@pytest.mark.usefixtures("large")
def test_commands_train_evaluate_and_predict_from_the_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **ARRAYS["classes"])
    (tmp_path / "job.yaml").write_text(job(tmp_path / "a.npz", stages=2).to_yaml(), encoding="utf-8")
    run = tmp_path / "run"
    assert pipetrain_here("train", tmp_path / "job.yaml", "--local", "--run-dir", run).returncode == 0
    for source in ([], ["--data", str(tmp_path / "a.npz")]):
        done = pipetrain_here("evaluate", run, *source)
        assert (done.returncode, done.stdout.split()[1]) == (0, "rows:"), done.stderr
    done = pipetrain_here("predict", run, "--input", tmp_path / "a.npz", "--output", tmp_path / "y.npz")
    assert "y (91, 4)" in done.stdout, done.stderr


_MEASURE = """
import sys
from pathlib import Path
from cluster.data.sources import load_data
from coordinator.job.spec import load_job
from stages.data import epoch_order
from stages.process_memory import status_bytes

small, large = (load_job(Path(path)) for path in sys.argv[1:])
load_data(small).fingerprint()
before = status_bytes("VmHWM")
data = load_data(large)
data.fingerprint()
order = epoch_order(0, 0, len(data.train))
for first in range(0, len(order), 64):
    data.train.inputs(order[first : first + 64])
    data.train.targets(order[first : first + 64])
print(status_bytes("VmHWM") - before, data.nbytes)
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Checking 200 MB and reading them in the order of an epoch holds less than 16 MiB at a time."""
    jobs = []
    for name, n in (("small", 2**11), ("large", 50_000)):
        with (tmp_path / f"{name}.npz").open("wb") as file:
            np.savez(file, x=np.zeros((n, 1000), np.float32), y=np.zeros(n, np.int64))
        spec = job(tmp_path / f"{name}.npz").replace(model__input=[1000])
        jobs.append(tmp_path / f"{name}.yaml")
        jobs[-1].write_text(spec.to_yaml(), encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", _MEASURE, *jobs], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    grown, held = map(int, done.stdout.split())
    assert held == (4 + 8) * 50_000  # the numbers of the rows, and their labels
    assert grown < 16 * 2**20
