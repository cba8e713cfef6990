from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from coordinator.job.spec import load_job, parse_job
from stages.errors import InvalidJob
from tests.coordinator.job_documents import LARGEST, SMALLEST

EXAMPLES = Path(__file__).parents[2] / "examples"
TEXT = """\
model: {input: [64], layers: [linear: {units: 16}, relu, linear: {units: 10}], loss: cross_entropy}
data: {source: rows/digits.npz}
training: {epochs: 3, batch_size: 32, optimizer: {sgd: {learning_rate: 1e-1}}}
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "my job.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def problems(path: Path, *overrides: str, **replacements: object) -> tuple[str, ...]:
    with pytest.raises(InvalidJob) as caught:
        load_job(path, overrides, **replacements)
    return caught.value.problems


def problems_of_text(text: str | bytes, tmp_path: Path) -> tuple[str, ...]:
    """Return the problems of a file with this text, without the file's name."""
    path = tmp_path / "job.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return tuple(line.removeprefix(f"{path}: ") for line in problems(path))


def test_names_and_paths_follow_from_the_files_place(job: Path, tmp_path: Path) -> None:
    spec = load_job(job)
    assert spec.name == "my-job"
    assert spec.data.source == str(tmp_path / "rows" / "digits.npz")
    assert spec.training.optimizer.chosen.learning_rate == 0.1


def test_paths_given_on_the_command_line_are_seen_from_the_working_directory(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    spec = load_job(job, ["data.source=a.npz", "data.validation=s3://b/c.npz"], schedule="v.csv")
    assert spec.data.source == str(tmp_path / "elsewhere" / "a.npz")
    assert spec.data.validation == "s3://b/c.npz"
    assert spec.pipeline.schedule == str(tmp_path / "elsewhere" / "v.csv")


def test_overrides_and_replacements_change_single_entries(job: Path) -> None:
    spec = load_job(
        job,
        ["training.epochs=9", "model.layers[0].linear.units=8", "model.layers.1=tanh", "training.clip_norm=1e-3"],
        stages=2,
        schedule="zb-h1",
        workers=None,
        training__batch_size=64,
    )
    assert [layer.kind for layer in spec.model_spec().layers] == ["linear", "tanh", "linear"]
    assert [shape.numbers for shape in spec.model_spec().network.shapes] == [64, 8, 8, 10]
    assert (spec.training.epochs, spec.training.batch_size, spec.training.clip_norm) == (9, 64, 0.001)
    assert (spec.pipeline.stages, spec.pipeline.schedule, spec.pipeline.workers) == (2, "zb-h1", None)


def test_wrong_overrides_are_reported_with_all_other_mistakes(job: Path) -> None:
    overrides = ["epochs", "a..b=1", "model.layers[9].linear.units=3", "seed.x=1", "seed=[", "training.epoch=4"]
    job.write_text(TEXT.replace("epochs: 3", "epochs: 0") + "seed: 5", encoding="utf-8")
    form = "must be path=value, such as training.epochs=3 or model.layers[0]=relu"
    assert problems(job, *overrides, stages=4) == (
        f"--set 'epochs': {form}",
        f"--set 'a..b=1': {form}",
        "--set 'model.layers[9].linear.units=3': model.layers is a list with 3 entries, which has no [9]",
        "--set 'seed.x=1': seed is 5, which has no x",
        "--set 'seed=[': line 2, column 1: while parsing a flow node did not find expected node content",
        "training.epochs: got 0, must be a whole number, at least 1; or give steps",
        "training.epoch: got 4, unknown key; did you mean epochs?",
        "pipeline.stages: got 4, must be at most 3, the number of model.layers",
    )


def test_keys_given_twice_are_mistakes_with_their_lines(tmp_path: Path) -> None:
    assert problems_of_text(TEXT + "seed: 1\nseed: -2\npipeline: {stages: 1,\n  stages: 2}\n", tmp_path) == (
        "seed: given twice, in lines 4 and 5; keep one",
        "pipeline.stages: given twice, in lines 6 and 7; keep one",
        "seed: got -2, must be a whole number, at least 0",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty; a job needs model, data and training"),
        ("# nothing\n", "is empty; a job needs model, data and training"),
        (b"\x89PNG\xff\xfe", "is not text in UTF-8, so it is not a job file"),
        ("a: [1\nb: 2", "line 2, column 2: while parsing a flow sequence did not find expected ',' or ']'"),
        ("a: 1\n\tb: 2", "line 2, column 1: while scanning a plain scalar found a tab character that violates "
         "indentation"),
        ("a: \x00", "line 1: holds a character that YAML does not allow ('\\x00')"),
        ("a: 1\n---\nb: 2", "line 2, column 1: expected a single document in the stream but found another document"),
        ("a: *b", "line 1, column 4: found undefined alias 'b'"),
        ("a: !!python/name:os.system x", "line 1, column 4: could not determine a constructor for the tag "
         "'tag:yaml.org,2002:python/name:os.system'"),
        ("a: !!int x", "line 1, column 4: is not a number that can be read"),
        ("a: " + "9" * 5000, "line 1, column 4: is not a number that can be read"),
        ("[" * 5000, "line 1, column 1001: while increasing flow level exceeded maximum nesting depth"),
        ("[" * 50, "line 1, column 34: it has lists or mappings more than 32 deep within each other"),
    ],
    ids=range(13),
)  # fmt: skip
def test_a_file_that_is_not_a_job_is_one_line(text: str | bytes, expected: str, tmp_path: Path) -> None:
    assert problems_of_text(text, tmp_path) == (expected,)


def test_a_file_that_is_not_there_names_the_nearest(job: Path, tmp_path: Path) -> None:
    assert problems(tmp_path / "my jobb.yaml") == (f"{tmp_path}/my jobb.yaml: no such file; did you mean {job}?",)
    (tmp_path / "wide.yaml").touch()
    assert problems(tmp_path / "nope.yaml") == (f"{tmp_path}/nope.yaml: no such file",)
    assert problems(tmp_path) == (f"{tmp_path}: is a directory, must be a job file such as {tmp_path}/job.yaml",)
    assert problems(tmp_path / "no" / "x.yaml") == (f"{tmp_path}/no/x.yaml: no such file",)
    assert problems(job / "x.yaml") == (f"{job}/x.yaml: cannot be read: Not a directory",)
    assert problems(Path("a\0b")) == ("a\0b: cannot be read: embedded null byte",)


def test_an_alias_that_holds_itself_is_a_problem_not_a_crash(tmp_path: Path) -> None:
    lines = problems_of_text(TEXT.replace("[linear: {units: 16}", "&a [*a"), tmp_path)
    assert len(lines) == 1
    assert lines[0] == "the job has lists or mappings more than 32 deep within each other"


def test_aliases_that_would_fill_the_memory_stay_short(tmp_path: Path) -> None:
    text = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
    assert max(len(line) for line in problems_of_text(text, tmp_path)) < 300


@pytest.mark.parametrize("document", [SMALLEST, LARGEST])
def test_the_resolved_job_loads_again_as_an_equal_one(document: dict[str, Any], tmp_path: Path) -> None:
    spec = parse_job(document)
    (tmp_path / "job.yaml").write_text(spec.to_yaml(), encoding="utf-8")
    assert load_job(tmp_path / "job.yaml") == spec
    assert load_job(tmp_path / "job.yaml").to_yaml() == spec.to_yaml()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_examples_are_right_and_called_like_their_files(path: Path) -> None:
    spec = load_job(path)
    assert spec.name == path.stem
    assert parse_job(spec.document()) == spec


def test_the_example_too_big_for_one_is_and_fits_four() -> None:
    spec = load_job(EXAMPLES / "too-big-for-one.yaml")
    sizes = [shape.numbers for shape in spec.model_spec().network.shapes]
    n_bytes = [12 * (i + 1) * o if i != o else 0 for i, o in itertools.pairwise(sizes)]
    large = 12 * (2048 + 1) * 2048
    limit = spec.resources.memory_per_worker
    assert limit is not None
    assert sum(n_bytes) + 7 * large > 2 * limit
    assert sum(n_bytes) + 2 * large + 32 * 2**20 < limit
