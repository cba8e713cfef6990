"""`model.weights: RUN|CHECKPOINT` and `model.weights_map`: what begins with given weights, and what is drawn."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from cluster.checkpoints.folder import CheckpointFolder
from cluster.checkpoints.given_weights import begin_with, lines_about_weights, require_weights, with_place_of_weights
from cluster.client.client import _spec
from cluster.client.upload import local_files
from cluster.data.rules import SourceRules
from coordinator.job.spec import JobSpec, load_job, parse_job
from stages.errors import InvalidData, InvalidJob
from stages.stage import Stage
from tests.jobs import digits_job, pipetrain_here


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of five layers: linear (64 → 32), relu, linear (→ 16), tanh, linear (→ 10)."""
    folder = tmp_path_factory.mktemp("trained")
    document = digits_job(stages=2).document()
    document["checkpoint"] = {"every_steps": 7, "keep": 100}
    document["training"]["optimizer"] = {"adamw": {"learning_rate": 0.01}}
    (folder / "job.yaml").write_text(yaml.safe_dump(document))
    done = pipetrain_here("train", folder / "job.yaml", "--local", "--run-dir", folder / "run")
    assert done.returncode == 0, done.stderr
    return folder / "run"


def job(weights: Path | None = None, layers: list[Any] | None = None, **model: Any) -> JobSpec:
    document = digits_job(stages=1).document()
    document["seed"] = 99
    document["model"] |= model
    if layers is not None:
        document["model"]["layers"] = layers
    if weights is not None:
        document["model"]["weights"] = str(weights)
    return parse_job(document)


def drawn(spec: JobSpec) -> dict[str, Any]:
    stage = Stage(spec.model_spec(), 0, len(spec.model_spec().network.ops), spec.optimizer())
    return stage.parameters.named(stage.parameters.values)


def begins(spec: JobSpec) -> dict[str, Any]:
    """Return all parameters with which the job begins."""
    stage = Stage(spec.model_spec(), 0, len(spec.model_spec().network.ops), spec.optimizer())
    stage.load(begin_with(with_place_of_weights(spec)) or {})
    return stage.parameters.named(stage.parameters.values)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


DEEPER: list[Any] = [
    {"linear": {"units": 32}},
    "relu",
    {"linear": {"units": 32}},
    "relu",
    {"linear": {"units": 16}},
    "tanh",
    {"linear": {"units": 3}},
]


def test_a_run_stands_for_its_newest_checkpoint_and_a_checkpoint_for_itself(trained: Path, tmp_path: Path) -> None:
    model = load_file(trained / "model.safetensors")
    for place in (trained, trained / "model.safetensors"):
        assert same(begins(job(place)), model)
    folder = CheckpointFolder(trained / "checkpoints")
    first = folder.place(folder.steps()[0])
    of_first = {k: v for path in first.glob("*.safetensors") for k, v in load_file(path).items() if k in model}
    assert same(begins(job(first)), of_first)
    assert not same(of_first, model)
    killed = shutil.copytree(trained, tmp_path / "killed")
    (killed / "model.safetensors").unlink()
    assert same(begins(job(killed)), model)
    assert lines_about_weights(job(killed)) == ()


def test_a_run_with_other_parameters_is_refused_without_a_map(trained: Path) -> None:
    for place in (trained, trained / "checkpoints" / "step-00000028"):
        with pytest.raises(InvalidData, match=r"has no 6\.weight, 6\.bias, with which the model would begin"):
            require_weights(job(place, DEEPER))


def test_what_has_the_same_path_and_shape_matches_and_the_rest_is_told(trained: Path) -> None:
    spec = job(trained, DEEPER, weights_map={})
    model, found, fresh = load_file(trained / "model.safetensors"), begins(spec), drawn(spec)
    for name, value in found.items():
        expected = model if name.startswith("0.") else fresh
        assert np.array_equal(value, expected[name]), name
    place = with_place_of_weights(spec).model.weights
    assert lines_about_weights(with_place_of_weights(spec)) == (
        f"2 parameters of 8 begin with those of {place}",
        "3 layers begin with drawn weights: 2, whose weight has the shape [32, 32], not [16, 32]; 4, whose weight has "
        "the shape [16, 32], not [10, 16]; 6",
        f"4 parameters of {place} not used: 2.bias, 2.weight, 4.bias, 4.weight",
    )


def test_a_map_moves_layers_and_null_leaves_one_out(trained: Path) -> None:
    layers = [*DEEPER[:-1], {"linear": {"units": 10}}]
    model = load_file(trained / "model.safetensors")
    spec = job(trained, layers, weights_map={2: 4, "4": 6, "4.bias": None})
    found, fresh = begins(spec), drawn(spec)
    for new, old in {
        "0.weight": "0.weight",
        "4.weight": "2.weight",
        "4.bias": "2.bias",
        "6.weight": "4.weight",
    }.items():
        assert np.array_equal(found[new], model[old]), new
    for name in ("2.weight", "6.bias"):
        assert np.array_equal(found[name], fresh[name]), name
    lines = lines_about_weights(with_place_of_weights(spec))
    assert lines[1] == "2 layers begin with drawn weights: 2; 6 (bias)"
    assert lines[2].endswith(" not used: 4.bias")


@pytest.mark.parametrize(
    ("renamed", "line"),
    [
        ({"9": "0"}, "has no 9, which model.weights_map names"),
        ({"2.wieght": "4.weight"}, "has no 2.wieght, which model.weights_map names; did you mean 2.weight?"),
        ({"2": "7"}, "model.weights_map: 2.bias would become 7.bias, which the model lacks; did you mean 6.bias?"),
        ({"2": "0"}, "2.bias has the shape [16], but the model's 0.bias has [32]"),
        ({"0.bias": "2.bias", "4.bias": "2.bias"}, "0.bias and 4.bias would both become 2.bias"),
        ({"0": None, "2": None, "4": None}, "no parameter of the model has the name and the shape of one there"),
    ],
)
def test_a_map_that_does_not_fit_is_one_line(trained: Path, renamed: dict[str, Any], line: str) -> None:
    with pytest.raises(InvalidData) as caught:
        require_weights(job(trained, DEEPER, weights_map=renamed))
    (problem,) = caught.value.problems
    assert line in problem


@pytest.mark.parametrize("renamed", [[], "2", {4.1: 2}, {"4": 4.1}, {"4": [1]}, {True: "2"}, {"": "2"}])
def test_what_is_no_map_is_a_problem_of_the_job(renamed: Any) -> None:
    with pytest.raises(InvalidJob, match=r"model\.weights_map: got .*, must be a mapping of paths"):
        job(Path("x.safetensors"), weights_map=renamed)


def test_a_map_alone_is_a_problem_of_the_job() -> None:
    with pytest.raises(InvalidJob, match=r"model\.weights_map: given without model\.weights"):
        job(weights_map={})


def test_every_cut_begins_with_the_same_and_trains_on_from_frozen_layers(trained: Path, tmp_path: Path) -> None:
    document = job(trained, DEEPER, weights_map={"2": "4"}, freeze=[0, 4]).document()
    document["model"]["layers"][-1] = {"linear": {"units": 10}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(document))
    done = pipetrain_here("verify", tmp_path / "job.yaml", "--local", "--steps", "2", "--stages", "1,3", "--json")
    assert {row["equal"] for row in json.loads(done.stdout)} == {True}, done.stderr
    done = pipetrain_here("train", tmp_path / "job.yaml", "--local", "--run-dir", tmp_path / "run")
    assert done.returncode == 0
    assert "2 layers begin with drawn weights: 2" in done.stdout + done.stderr
    told = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert any("begin with drawn weights" in str(event.get("detail")) for event in told)
    before, after = load_file(trained / "model.safetensors"), load_file(tmp_path / "run" / "model.safetensors")
    for new, old in {"0.weight": "0.weight", "0.bias": "0.bias", "4.weight": "2.weight", "4.bias": "2.bias"}.items():
        assert np.array_equal(after[new], before[old])
    assert (tmp_path / "run" / "job.yaml").read_text().count(str(trained / "checkpoints" / "step-00000028")) == 1
    assert not {"weights", "weights_map", "freeze"} & set(
        json.loads((tmp_path / "run" / "model.json").read_text())["model"]
    )


def test_a_run_goes_on_although_the_weights_it_began_with_are_gone(trained: Path, tmp_path: Path) -> None:
    source = shutil.copytree(trained, tmp_path / "source")
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job(source).document()))
    assert pipetrain_here("train", tmp_path / "job.yaml", "--local", "--run-dir", tmp_path / "run").returncode == 0
    shutil.rmtree(source)
    more = pipetrain_here("resume", tmp_path / "run", "--local", "--set", "training.epochs=3")
    assert more.returncode == 0, more.stderr


def test_the_path_is_seen_from_the_job_file_and_a_client_uploads_the_model_of_a_run(
    trained: Path, tmp_path: Path
) -> None:
    document = job().document()
    document["model"]["weights"] = "../run"
    (trained.parent / "jobs").mkdir(exist_ok=True)
    path = trained.parent / "jobs" / "job.yaml"
    path.write_text(yaml.safe_dump(document))
    assert same(begins(load_job(path)), load_file(trained / "model.safetensors"))
    spec = _spec(str(path), (), None)
    assert [Path(one).resolve() for one in local_files(spec)] == [trained / "model.safetensors"]
    checkpoint = trained / "checkpoints" / "step-00000028"
    assert local_files(_spec(job(checkpoint), (), None)) == []


def test_the_rules_of_the_service_hold_for_runs_and_checkpoints(trained: Path) -> None:
    """What is not allowed is refused before it is looked for, so that nobody learns what exists."""
    for place in (trained, trained / "checkpoints" / "step-00000028", trained / "nothing"):
        with pytest.raises(InvalidData, match="local files are read only below /elsewhere by this service"):
            require_weights(job(place), SourceRules(roots=("/elsewhere",)))
    for place in (trained, trained / "checkpoints" / "step-00000028"):
        require_weights(job(place), SourceRules(roots=(str(trained),)))


def test_what_is_no_run_is_one_line(tmp_path: Path) -> None:
    for place, line in ((tmp_path, "is neither a run directory"), (tmp_path / "nothing", "no such file")):
        with pytest.raises(InvalidData, match=line):
            require_weights(job(place))
