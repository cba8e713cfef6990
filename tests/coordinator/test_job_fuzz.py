from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.job.spec import JobSpec, load_job, parse_job
from stages.errors import InvalidJob
from tests.coordinator.job_documents import LARGEST, SMALLEST, changed

_keys = st.text(max_size=4) | st.integers() | st.none() | st.sampled_from([*SMALLEST, "linear", "units", "sgd"])
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=3)
    | st.sampled_from(["auto", "1f1b", "relu", "digits", "a.csv", "1GiB"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


def _accepts_or_explains(document: object) -> JobSpec | None:
    try:
        return parse_job(document)
    except InvalidJob as error:
        lines = error.problems
    assert lines
    assert all(len(line.splitlines()) == 1 for line in lines)
    assert len(set(lines)) == len(lines)
    return None


@settings(deadline=None, max_examples=150)
@given(_values | st.fixed_dictionaries(dict.fromkeys(SMALLEST, _values)))
def test_no_document_raises_anything_but_invalid_job(document: object) -> None:
    _accepts_or_explains(document)


def _paths(value: object, prefix: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    if isinstance(value, dict):
        pairs = list(value.items())
    elif isinstance(value, list):
        pairs = list(enumerate(value))
    else:
        return []
    return [path for key, inner in pairs for path in [(*prefix, key), *_paths(inner, (*prefix, key))]]


@settings(deadline=None, max_examples=250)
@given(st.data())
def test_no_mutation_of_a_right_job_raises_anything_but_invalid_job(data: st.DataObject) -> None:
    document = copy.deepcopy(data.draw(st.sampled_from([SMALLEST, LARGEST])))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(_paths(document)))
        here: Any = document
        for part in path[:-1]:
            here = here[part]
        if data.draw(st.booleans()):
            here[path[-1]] = data.draw(_values)
        else:
            del here[path[-1]]
        if not _paths(document):
            break
    if (spec := _accepts_or_explains(document)) is not None:
        assert parse_job(spec.document()) == spec


@settings(deadline=None, max_examples=50)
@given(
    target=st.lists(st.text(min_size=1), min_size=1, max_size=3),
    rate=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    seed=st.integers(0, 2**63 - 1),
    memory=st.integers(1, 2**63 - 1),
)
def test_any_value_survives_the_way_through_yaml(
    tmp_path_factory: pytest.TempPathFactory, target: list[str], rate: float, seed: int, memory: int
) -> None:
    document = changed("data", {"source": "/a/b.csv", "target": target})
    document["seed"], document["resources"] = seed, {"memory_per_worker": memory}
    document["training"]["optimizer"]["sgd"]["learning_rate"] = rate
    try:
        spec = parse_job(document)
    except InvalidJob:  # a lone surrogate in a column's name
        return
    path = tmp_path_factory.mktemp("job") / "job.yaml"
    path.write_text(spec.to_yaml(), encoding="utf-8", newline="")
    assert load_job(path) == spec


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_no_bytes_in_the_file_and_no_override_raise_anything_but_invalid_job(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    text = parse_job(LARGEST).to_yaml().encode()
    start = data.draw(st.integers(0, len(text)))
    yaml_like = st.text("[]{}:,-&*!#|>%@`\"'~<? \t\nab01.e_é\u2028").map(str.encode)
    middle = data.draw(st.binary(max_size=8) | yaml_like)
    overrides = data.draw(st.lists(st.text(max_size=8) | st.text("model.layers[0]=ab12{} ", max_size=20), max_size=2))
    path = tmp_path_factory.mktemp("job") / "job.yaml"
    path.write_bytes(text[:start] + middle + text[start + data.draw(st.integers(0, 30)) :])
    try:
        load_job(path, overrides)
    except InvalidJob as error:
        lines = error.problems
    else:
        return
    assert lines
    assert all(len(line.splitlines()) == 1 for line in lines)


def test_a_number_with_thousands_of_digits_is_one_problem() -> None:
    with pytest.raises(InvalidJob) as caught:
        parse_job(changed("seed", 10**5000))
    assert caught.value.problems == ("seed: got a number with too many digits, must be a whole number, at least 0",)
