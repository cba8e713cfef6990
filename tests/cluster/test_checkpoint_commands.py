"""`pipetrain checkpoints`: they tell the truth about checkpoints, runs and any .safetensors file, without a cluster."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from cluster.checkpoints.folder import CheckpointFolder
from tests.cluster.test_resume import gpt
from tests.jobs import digits_job, pipetrain_here


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of 30 steps of a deep network with AdamW, with several checkpoints."""
    folder = tmp_path_factory.mktemp("trained")
    document = gpt(folder, steps=8).document()
    document["checkpoint"] = {"every_steps": 1000, "keep": 100}
    (folder / "job.yaml").write_text(yaml.safe_dump(document))
    done = pipetrain_here("train", folder / "job.yaml", "--local", "--run-dir", folder / "run")
    assert done.returncode == 0, done.stderr
    for steps in (16, 23, 30):  # each ends with a checkpoint, however slow the disk is
        done = pipetrain_here("resume", folder / "run", "--local", "--set", f"training.steps={steps}")
        assert done.returncode == 0, done.stderr
    assert CheckpointFolder(folder / "run" / "checkpoints").steps() == [8, 16, 23, 30]
    return folder / "run"


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


def place(run: Path, k: int) -> Path:
    """Return the k-th checkpoint by its step."""
    folder = CheckpointFolder(run / "checkpoints")
    return folder.place(folder.steps()[k])


def ask(*arguments: Any, code: int = 0) -> Any:
    done = pipetrain_here("checkpoints", *arguments, "--json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def told(*arguments: Any, code: int = 0) -> list[str]:
    done = pipetrain_here("checkpoints", *arguments)
    assert done.returncode == code, done.stderr
    return (done.stderr if code == 2 else done.stdout).splitlines()


def by_hand(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]]) -> Path:
    """Write a .safetensors file with types that NumPy does not have."""
    header, at = dict[str, Any](), 0
    for name, (kind, shape, content) in tensors.items():
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, at + len(content)]}
        at += len(content)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(one[2] for one in tensors.values()))
    return path


def test_list_has_the_newest_first_and_marks_the_best(run: Path) -> None:
    rows = ask("list", run)
    steps = CheckpointFolder(run / "checkpoints").steps()
    assert len(steps) > 2
    assert [row["step"] for row in rows] == steps[::-1]
    assert [row["newest"] for row in rows] == [step == 30 for step in steps[::-1]]
    losses = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["kind"] == "eval":
            losses[row["step"]] = row["loss"]
    for row in rows:
        before = [step for step in losses if step <= row["step"]]
        assert (row["validation"] or {}).get("loss") == (losses[max(before)] if before else None)
        files = [path for path in Path(row["place"]).iterdir() if path.suffix == ".safetensors"]
        assert (row["files"], row["bytes"]) == (len(files), sum(path.stat().st_size for path in files))
    judged = {row["step"]: row["validation"]["loss"] for row in rows if row["validation"]}
    (best,) = (row["step"] for row in rows if row["best"])
    assert judged[best] == min(judged.values())
    lines = told("list", run)
    assert len(lines) == len(rows) + 1
    assert lines[1].split()[0] == "30"
    assert "newest" in lines[1]


def test_a_run_without_checkpoints_and_what_is_no_run(run: Path, tmp_path: Path) -> None:
    (run / "checkpoints" / "step-00000030" / "checkpoint.json").write_text("{")
    assert "is no manifest of a checkpoint" in ask("list", run)[0]["problem"]
    assert "is no manifest" in told("list", run)[1]
    shutil.rmtree(run / "checkpoints")
    assert ask("list", run) == []
    assert ask("inspect", run)["place"] == str(run / "model.safetensors")
    assert ask("verify", run) == []
    (tmp_path / "other").mkdir()
    for command in ("list", "inspect", "verify"):
        assert told(command, tmp_path / "other", code=2) == [
            f"error: {tmp_path}/other: is neither a run directory (it has no job.yaml) nor a checkpoint"
        ]
        assert told(command, tmp_path / "nothing", code=2) == [
            f"error: {tmp_path}/nothing: no such run directory, checkpoint or file"
        ]


def test_inspect_shows_every_tensor_as_the_library_reads_it(run: Path) -> None:
    found = ask("inspect", place(run, 1), "--norms")
    assert found["checkpoint"]["position"]["step"] == int(place(run, 1).name[5:])
    assert found["checkpoint"]["job"]["name"] == "gpt"
    expected = dict[str, Any]()
    for path in place(run, 1).glob("*.safetensors"):
        expected |= {name: (path.name, array) for name, array in load_file(path).items()}
    assert {one["name"] for one in found["tensors"]} == set(expected)
    for one in found["tensors"]:
        file, array = expected[one["name"]]
        assert (one["file"], one["dtype"], one["shape"]) == (file, "F32", list(array.shape))
        assert one["bytes"] == array.nbytes
        wide = array.astype(np.float64).ravel()
        assert one["norm"] == pytest.approx(np.linalg.norm(wide), rel=1e-12)
        assert (one["largest"], one["not_finite"]) == (np.abs(wide).max(), 0)
    lines = told("inspect", run)
    assert "after step 30" in lines[0]
    longest = max(expected, key=len)
    assert any(line.split()[0] == longest for line in lines if line), "no name is cut"


def test_two_checkpoints_differ_by_what_numpy_says(run: Path) -> None:
    found = ask("diff", place(run, 0), run, code=1)
    assert not found["equal"]
    assert found["b"] == str(place(run, -1))
    pairs = [(path, place(run, -1) / path.name) for path in place(run, 0).glob("*.safetensors")]
    values = {name: (a, load_file(q)[name]) for p, q in pairs for name, a in load_file(p).items()}
    assert len(found["tensors"]) == len(values)
    for one in found["tensors"]:
        a, b = (array.astype(np.float64).ravel() for array in values[one["name"]])
        assert one["verdict"] == ("equal" if np.array_equal(a, b) else "values differ")
        assert one["largest"] == np.abs(a - b).max()
        assert one["relative"] == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(a), rel=1e-9)
    assert told("diff", place(run, 0), run, code=1)[-1] == f"{len(values)} tensors: 0 bitwise equal, {len(values)} not"


def test_what_is_bitwise_equal_exits_with_0(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(place(run, 1), tmp_path / "copy")
    assert ask("diff", place(run, 1), other)["equal"]
    with_model = ask("diff", run, run / "model.safetensors")
    assert (with_model["equal"], with_model["only_parameters"]) == (True, True)
    assert {one["name"] for one in with_model["tensors"]} == set(load_file(run / "model.safetensors"))


def test_diff_tells_every_kind_of_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.checkpoints.tensor_files.PART_BYTES", 16)
    x = np.linspace(-1, 1, 11)
    save_file({"same": x, "only": x, "shape": x, "type": x, "zero": x * 0, "nan": x}, tmp_path / "a.safetensors")
    changed = {"same": x, "more": x, "shape": x[:10], "type": x.astype("f4"), "zero": x * -0.0, "nan": x * np.nan}
    save_file(changed, tmp_path / "b.safetensors")
    found = ask("diff", tmp_path / "a.safetensors", tmp_path / "b.safetensors", code=1)
    got = {one["name"]: (one["verdict"], one["largest"]) for one in found["tensors"]}
    assert got == {
        "same": ("equal", 0.0),
        "only": ("only in A", None),
        "more": ("only in B", None),
        "shape": ("shapes differ", None),
        "type": ("types differ", float(np.abs(x - x.astype("f4")).max())),
        "zero": ("values differ", 0.0),  # of −0 and 0 only a bit differs
        "nan": ("values differ", None),
    }
    lines = told("diff", tmp_path / "a.safetensors", tmp_path / "b.safetensors", code=1)
    assert any(line.split()[0] == "nan" and line.split()[-1] == "nan" for line in lines)
    assert lines[-1] == "7 tensors: 1 bitwise equal, 6 not"


def test_types_that_numpy_does_not_have_are_read_too(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3.0, 0.15625], dtype="<f4")
    bits = (values.view("<u4") >> 16).astype("<u2").tobytes()
    eight = bytes(range(4))
    a = by_hand(tmp_path / "a.safetensors", {"w": ("BF16", (2, 2), bits), "q": ("F8_E4M3", (4,), eight)})
    b = by_hand(
        tmp_path / "b.safetensors", {"w": ("F32", (2, 2), values.tobytes()), "q": ("F8_E4M3", (4,), eight[::-1])}
    )
    found = {one["name"]: one for one in ask("inspect", a, "--norms")["tensors"]}
    assert found["w"]["norm"] == pytest.approx(float(np.linalg.norm(values.astype("f8"))), rel=1e-12)
    assert "norm" not in found["q"]
    assert ask("diff", a, a)["equal"]
    differences = {one["name"]: (one["verdict"], one["largest"]) for one in ask("diff", a, b, code=1)["tensors"]}
    assert differences == {"w": ("types differ", 0.0), "q": ("values differ", None)}


def test_a_file_of_torch_is_read(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="pip install 'pipetrain[benchmark]'")
    from safetensors.torch import save_model

    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2)).to(torch.bfloat16)
    save_model(network, str(tmp_path / "t.safetensors"))
    found = {one["name"]: one for one in ask("inspect", tmp_path / "t.safetensors", "--norms")["tensors"]}
    for name, value in network.state_dict().items():
        assert found[name]["shape"] == list(value.shape)
        assert found[name]["norm"] == pytest.approx(float(value.double().norm()), rel=1e-12)


def test_numbers_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    save_file({"w": np.array([3.0, np.nan, -np.inf, 4.0])}, tmp_path / "w.safetensors")
    (one,) = ask("inspect", tmp_path / "w.safetensors", "--norms")["tensors"]
    assert (one["norm"], one["largest"], one["not_finite"]) == (5.0, 4.0, 2)
    assert "2 NaN or infinite" in told("inspect", tmp_path / "w.safetensors", "--norms")[-1]


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing"])
def test_verify_says_which_file_is_damaged(run: Path, damage: str) -> None:
    assert all(row["whole"] for row in ask("verify", run))
    victim = sorted(place(run, 2).glob("*.safetensors"))[1]
    content = bytearray(victim.read_bytes())
    if damage == "flipped":
        content[-1] ^= 1
        victim.write_bytes(content)
    elif damage == "truncated":
        victim.write_bytes(content[:-4])
    else:
        victim.unlink()
    rows = {row["place"]: row for row in ask("verify", run, code=1)}
    assert [step for step, row in rows.items() if not row["whole"]] == [str(place(run, 2))]
    (line,) = rows[str(place(run, 2))]["damage"]
    assert line.startswith(f"{victim}: ")
    assert line in told("verify", place(run, 2), code=1)
    told("verify", place(run, 1))
    told("export", place(run, 2), "-o", run / "x.safetensors", code=2)
    assert not (run / "x.safetensors").exists()


def test_verify_looks_at_the_header_of_a_file(run: Path) -> None:
    model = run / "model.safetensors"
    assert ask("verify", model)[0]["whole"]
    model.write_bytes(model.read_bytes()[:-1])
    (line,) = ask("verify", model, code=1)[0]["damage"]
    assert line.startswith(f"{model}: is no whole safetensors file: ")
    assert told("inspect", model, code=2) == [f"error: {line}"]


def test_export_is_bitwise_the_model_and_with_optimizer_the_whole_state(run: Path, tmp_path: Path) -> None:
    told("export", run, "-o", tmp_path / "model.safetensors")
    exported, model = load_file(tmp_path / "model.safetensors"), load_file(run / "model.safetensors")
    assert {name: array.tobytes() for name, array in exported.items()} == {
        name: array.tobytes() for name, array in model.items()
    }
    exists = told("export", run, "-o", tmp_path / "model.safetensors", code=2)
    assert exists == [
        f"error: {tmp_path}/model.safetensors: exists; choose another --output, or let --overwrite replace it"
    ]
    told("export", place(run, 1), "-o", tmp_path / "model.safetensors", "--optimizer", "--overwrite")
    expected = {k: v.tobytes() for path in place(run, 1).glob("*.safetensors") for k, v in load_file(path).items()}
    whole = load_file(tmp_path / "model.safetensors")
    assert {name: array.tobytes() for name, array in whole.items()} == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "run"]


def test_a_manifest_names_only_files_beside_itself(run: Path) -> None:
    path = place(run, -1) / "checkpoint.json"
    document = json.loads(path.read_text())
    document["files"][0]["name"] = "../../model.safetensors"
    path.write_text(json.dumps(document))
    assert "is no name of a layer's file" in told("inspect", place(run, -1), code=2)[0]


def test_they_need_no_ray_and_no_pickle(run: Path) -> None:
    """All of them, in a process in which Ray cannot be imported and nothing can be unpickled."""
    script = """
import sys
sys.modules["ray"] = None
import pickle
def refuse(*_, **__):
    raise AssertionError("unpickled")
pickle.load = pickle.loads = pickle.Unpickler = refuse
from cluster.cli import cli
run = sys.argv[1]
for words in (["list"], ["inspect", "--norms"], ["verify"], ["diff", run], ["export", "-o", run + ".safetensors"]):
    code = cli.main(["checkpoints", *words, run], standalone_mode=False)
    assert not code, words
"""
    done = subprocess.run([sys.executable, "-c", script, run], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_digits_of_two_seeds_differ(tmp_path: Path) -> None:
    for seed in (1, 2):
        (tmp_path / "job.yaml").write_text(yaml.safe_dump({**digits_job(stages=1).document(), "seed": seed}))
        made = pipetrain_here("train", tmp_path / "job.yaml", "--local", "--run-dir", tmp_path / str(seed))
        assert made.returncode == 0, made.stderr
    found = ask("diff", tmp_path / "1", tmp_path / "2", code=1)
    assert {one["verdict"] for one in found["tensors"]} == {"values differ"}
    assert all(one["largest"] > 0 and math.isfinite(one["relative"]) for one in found["tensors"])
