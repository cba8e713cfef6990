"""Arrays as people save them: archives with other names, pairs of files, objects instead of numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.data.sources import load_data
from coordinator.job.source_names import files_named
from coordinator.job.spec import load_job
from coordinator.job.yaml_text import write_yaml
from stages.errors import InvalidData, InvalidJob
from tests.cluster.test_sources import X, Y, job, npz, problem


@pytest.mark.parametrize(
    ("names", "offered"),
    [
        (("x_train", "y_train", "x_test", "y_test"), "data.arrays: {x: x_train, y: y_train}"),
        (("X", "Y"), "data.arrays: {x: X, y: Y}"),
        (("arr_0", "arr_1"), "data.arrays: {x: arr_0, y: arr_1}"),
        (("images", "labels"), "data.arrays: {x: images, y: labels}"),
        (("a", "labels"), "data.arrays: {x: NAME, y: labels}"),
    ],
)
def test_other_names_are_offered_and_taken_if_they_are_given(
    names: tuple[str, ...], offered: str, tmp_path: Path
) -> None:
    path = npz(tmp_path / "d.npz", **{name: Y if k % 2 else X for k, name in enumerate(names)})
    assert problem(job(path)) == f"{path}: has no array x, only {', '.join(names)}; write {offered}"
    data = load_data(job(path, data={"arrays": {"x": names[0], "y": names[1]}, "validation": 0}))
    assert (data.train.x.tolist(), data.train.y.tolist()) == (X.tolist(), Y.tolist())


def test_one_name_may_be_another(tmp_path: Path) -> None:
    path = npz(tmp_path / "d.npz", x=X, labels=Y)
    assert problem(job(path)) == f"{path}: has no array y, only x, labels; write data.arrays: {{x: x, y: labels}}"
    assert load_data(job(path, data={"arrays": {"y": "labels"}})).train.y.shape == (8,)
    second = npz(tmp_path / "v.npz", x=X, y=Y)
    data = load_data(job(path, data={"arrays": {"y": "labels"}, "validation": str(second)}))
    assert len(data.validation) == 10


def test_a_pair_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    document = job(tmp_path / "x.npy", data={"target": "y.npy"}).document()
    document["data"]["source"] = "x.npy"
    (tmp_path / "job.yaml").write_text(write_yaml(document))
    spec = load_job(tmp_path / "job.yaml")
    assert files_named(spec.document()) == {"data.source": f"{tmp_path}/x.npy", "data.target": f"{tmp_path}/y.npy"}
    same = load_data(job(npz(tmp_path / "d.npz", x=X, y=Y)))
    assert load_data(spec).fingerprint() == same.fingerprint()
    (tmp_path / "moved").mkdir()
    (tmp_path / "y.npy").rename(tmp_path / "moved" / "z.npy")
    assert problem(spec) == f"{tmp_path}/y.npy: no such file"
    moved = spec.relocated({f"{tmp_path}/y.npy": f"{tmp_path}/moved/z.npy"})
    assert load_data(moved).fingerprint() == same.fingerprint()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, "data.target: missing, must be the .npy file with the targets of 'x.npy'; tokens need data.block"),
        ({"target": "price"}, "data.target: got 'price', must be the .npy file with the targets of 'x.npy'"),
        ({"target": ["a.npy", "b.npy"]},
         "data.target: got ['a.npy', 'b.npy'], must be the .npy file with the targets of 'x.npy'"),
    ],
)  # fmt: skip
def test_inputs_alone_are_no_data(data: dict[str, Any], expected: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        job("x.npy", data=data)
    assert list(caught.value.problems) == [expected]


def test_objects_are_not_read(tmp_path: Path) -> None:
    path = npz(tmp_path / "d.npz", x=np.array([{}, {}]), y=Y[:2])
    told = "holds Python objects, which are not read, since reading them can run code; save numbers: "
    array = "numpy.array(values, dtype='float32')"
    assert problem(job(path)) == f"{path}: array x {told}numpy.savez(file, x=…) of {array}"
    np.save(tmp_path / "x.npy", np.array([{}, {}]))
    np.save(tmp_path / "y.npy", Y[:2])
    with pytest.raises(InvalidData) as caught:
        load_data(job(tmp_path / "x.npy", data={"target": str(tmp_path / "y.npy")}))
    assert str(caught.value) == f"{tmp_path}/x.npy: it {told}numpy.save(file, …) of {array}"
