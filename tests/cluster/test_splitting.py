"""Laws of splitting rows: nothing is lost or doubled, classes are in proportion, groups stay together."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.data import splitting
from cluster.data.sources import load_data
from cluster.data.splitting import class_places, class_quotas, group_rows, split_rows
from coordinator.job.data_section import DataSection
from stages.data import train_validation_split
from stages.errors import InvalidData
from tests.cluster.tables import problems_of, table, table_job

labels = st.lists(st.integers(0, 4), min_size=2, max_size=60).map(np.array)
seeds = st.integers(0, 2**32)


def section(**entries: object) -> DataSection:
    return DataSection.model_validate({"source": "d.csv", **entries})


@given(st.integers(2, 200), st.one_of(st.floats(0.01, 0.99), st.integers(1, 199)), seeds)
def test_both_parts_have_each_row_once_in_the_documented_order(n: int, validation: float | int, seed: int) -> None:
    k = validation if isinstance(validation, int) else round(n * validation)
    if not 0 < k < n:
        with pytest.raises(InvalidData, match="leaves none for"):
            split_rows(section(validation=validation), n, seed)
        return
    train, held_out = split_rows(section(validation=validation), n, seed)
    order = np.random.default_rng([seed, 3]).permutation(n)
    assert (held_out.tolist(), train.tolist()) == (order[:k].tolist(), order[k:].tolist())
    if isinstance(validation, float):
        assert [part.tolist() for part in train_validation_split(n, validation, seed)] == [
            train.tolist(),
            held_out.tolist(),
        ]


@given(labels, st.floats(0.05, 0.95), seeds)
def test_a_stratified_split_has_every_class_in_proportion(classes: np.ndarray, share: float, seed: int) -> None:
    classes = np.unique(classes, return_inverse=True)[1]
    n, sizes = len(classes), np.bincount(classes)
    k = round(n * share)
    quotas = class_quotas(sizes, k)
    assert quotas.sum() == k
    assert (np.abs(quotas - sizes * k / n) < 1).all()
    order = np.random.default_rng([seed, 3]).permutation(n)
    chosen = np.empty(n, dtype=bool)
    with mock.patch.object(splitting, "_PART_ROWS", 7):
        chosen[order] = class_places(order, classes, quotas)
    for c, quota in enumerate(quotas.tolist()):  # the first rows of each class in the order
        own = [row for row in order.tolist() if classes[row] == c]
        assert [row for row in own if chosen[row]] == own[:quota]
    if not 0 < k < n:
        return
    train, held_out = split_rows(section(validation=share), n, seed, classes=classes, stratify=True)
    enough = bool(((quotas >= 1) & (quotas < sizes)).all())
    wanted = [row for row in order.tolist() if chosen[row]] if enough else order[:k].tolist()
    assert held_out.tolist() == wanted
    assert sorted([*train.tolist(), *wanted]) == list(range(n))
    assert [row for row in order.tolist() if row in set(train.tolist())] == train.tolist()


@given(labels, st.floats(0.05, 0.95), seeds)
def test_groups_stay_together(groups: np.ndarray, share: float, seed: int) -> None:
    groups = np.unique(groups, return_inverse=True)[1]
    n = len(groups)
    k = round(n * share)
    if not 0 < k < n:
        return
    order = np.random.default_rng([seed, 3]).permutation(n)
    chosen = group_rows(order, groups, k)
    assert all(len(set(chosen[groups == g].tolist())) == 1 for g in range(groups.max() + 1))
    assert chosen.sum() >= k
    in_turn = list(dict.fromkeys(groups[order].tolist()))
    taken = [g for g in in_turn if chosen[groups == g].all()]
    assert taken == in_turn[: len(taken)]
    assert sum(int((groups == g).sum()) for g in taken[:-1]) < k  # no more groups than are needed
    if chosen.all():
        with pytest.raises(InvalidData, match="leave no row for training"):
            split_rows(section(validation=share, group="g"), n, seed, groups=groups)
        return
    train, held_out = split_rows(section(validation=share, group="g"), n, seed, groups=groups)
    assert held_out.tolist() == [row for row in order.tolist() if chosen[row]]
    assert train.tolist() == [row for row in order.tolist() if not chosen[row]]


def test_classes_are_stratified_by_default_if_all_have_enough_rows(tmp_path: Path) -> None:
    rows = ["rare"] * 5 + ["often"] * 95
    path = table(tmp_path, "a,y\n" + "".join(f"{i},{name}\n" for i, name in enumerate(rows)))
    data = load_data(table_job(path))
    assert np.bincount(data.validation.y).tolist() == [19, 1]
    off = load_data(table_job(path, data={"stratified": False}))
    order = np.random.default_rng([7, 3]).permutation(100)
    assert off.validation.y.tolist() == [int(row < 5) for row in order[:20]]
    table(tmp_path, "a,y\n" + "".join(f"{i},{name}\n" for i, name in enumerate(rows[3:])))
    assert len(load_data(table_job(path)).validation) == 19
    assert problems_of(table_job(path, data={"stratified": True})) == [
        "data.stratified needs rows of every class in both parts, but too few are of 'rare'; remove it, or change "
        "data.validation"
    ]
    assert problems_of(
        table_job(path, "mse", 1, data={"stratified": True, "target": "a", "columns": {"y": "category"}})
    ) == ["data.stratified needs a target of classes; remove it"]


def test_a_group_is_no_input_and_stays_in_one_part(tmp_path: Path) -> None:
    path = table(tmp_path, "who,a,y\n" + "".join(f"p{i % 7},{i},{i % 2}\n" for i in range(70)))
    data = load_data(table_job(path, data={"group": "who", "scale": "none"}))
    assert data.preprocessing is not None
    assert data.preprocessing.columns == ("a",)
    people = [{int(a) % 7 for a in part.x[:, 0].tolist()} for part in (data.train, data.validation)]
    assert people[0].isdisjoint(people[1])
    assert (len(data.validation), "left out (1): who (it is the group)" in data.said) == (20, True)


def test_a_number_of_rows_and_none(tmp_path: Path) -> None:
    path = table(tmp_path, "a,y\n" + "".join(f"{i},{i}\n" for i in range(10)))
    data = load_data(table_job(path, "mse", 1, data={"validation": 3, "scale": "none"}))
    assert (len(data.train), len(data.validation)) == (7, 3)
    data = load_data(table_job(path, "mse", 1, data={"validation": 0, "scale": "none"}))
    assert (data.train.x[:, 0].tolist(), len(data.validation)) == (list(range(10)), 0)  # as they stand in the file
    assert problems_of(table_job(path, "mse", 1, data={"validation": 10})) == [
        "data.validation is 10 rows, but it has 10, which leaves none for training; give fewer, or a share such as 0.2"
    ]


def test_arrays_are_stratified_only_on_demand(tmp_path: Path) -> None:
    y = np.array([0] * 5 + [1] * 95)
    np.savez(tmp_path / "d.npz", x=np.arange(100.0)[:, None], y=y)
    spec = table_job(tmp_path / "d.npz", units=2, model={"input": [1]})
    order = np.random.default_rng([7, 3]).permutation(100)
    assert load_data(spec).validation.y.tolist() == y[order[:20]].tolist()
    demanded = spec.replace(data__stratified=True)
    assert np.bincount(load_data(demanded).validation.y).tolist() == [1, 19]
