"""Whole runs on tables: without validation, with preprocessing in every number of stages, and what is said of the
data."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from cluster.data.sources import load_data
from coordinator.job.schedule_names import SCHEDULES, fewest_micro_batches
from coordinator.job.spec import load_job
from coordinator.job.yaml_text import write_yaml
from coordinator.texts import precise_span
from tests.cluster.tables import table, table_job
from tests.jobs import pipetrain_here


def mixed(folder: Path) -> Path:
    """Write a table with numbers of different sizes, a category, gaps, a date and text classes."""
    rng = np.random.default_rng(2)
    lines = []
    for i in range(60):
        kind = ("elm", "fir", "oak")[i % 3]
        age = "" if i % 11 == 5 else f"{rng.normal(30 + 10 * (i % 3), 3):.2f}"
        lines.append(
            f"{kind},{age},{rng.normal(1e6, 1e4):.0f},{'north' if i % 2 else 'south'},2020-01-{i % 28 + 1:02}\n"
        )
    return table(folder, "tree,age,mass,side,seen\n" + "".join(lines))


DATA = {"target": "tree", "columns": {"side": "category", "seen": "drop", "age": {"missing": "median"}}}
LAYERS = [{"linear": {"units": 8}}, "relu", {"linear": {"units": 8}}, "relu", {"linear": {"units": "classes"}}]


def job_file(folder: Path, source: Path, **changes: object) -> Path:
    """Write a job file whose shapes follow from the data, and return its path."""
    spec = table_job(source, model={"layers": LAYERS}, data={**DATA, **changes})
    path = folder / "job.yaml"
    path.write_text(write_yaml(spec.document()))
    return path


def test_every_stage_count_and_schedule_gives_the_same_bits_with_preprocessing(tmp_path: Path) -> None:
    done = pipetrain_here("verify", job_file(tmp_path, mixed(tmp_path)), "--local", "--stages", "1,2,3,4,5", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    of_one_micro_batch = [name for name in SCHEDULES if fewest_micro_batches(name, 1) == 1]
    assert {(row["schedule"], row["stages"]) for row in rows} == {*product(of_one_micro_batch, (1, 2, 3, 4, 5))}
    assert all(row["equal"] for row in rows)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"validation": 0},
        {"missing": "drop", "columns": {"side": "category", "seen": "drop"}},
        {"group": "side", "columns": {"seen": "drop", "age": {"missing": "mean"}}},
    ],
    ids=range(4),
)
def test_a_process_that_reads_the_resolved_job_comes_to_the_same_bits(
    changes: dict[str, object], tmp_path: Path
) -> None:
    """Workers get the job with model.input, units and data.target filled in."""
    data = load_data(table_job(mixed(tmp_path), model={"layers": LAYERS}, data={**DATA, **changes}))
    again = load_data(data.spec)
    assert (again.spec, again.preprocessing, again.fingerprint()) == (data.spec, data.preprocessing, data.fingerprint())
    assert again.said == data.said


@pytest.mark.parametrize("none", ["0", "null", "none"])
def test_a_run_without_validation_trains_on_all_rows(none: str, tmp_path: Path) -> None:
    path, run = job_file(tmp_path, mixed(tmp_path)), tmp_path / "run"
    epochs = ("--set", "training.epochs=3", "--set", f"data.validation={none}")
    done = pipetrain_here("train", path, "--local", "--run-dir", run, *epochs)
    assert done.returncode == 0, done.stderr
    assert "60 rows train, no validation" in done.stderr
    shown = [line.split(" · ")[:3] for line in done.stderr.splitlines() if line.startswith("epoch")]
    assert [parts[:2] for parts in shown] == [["epoch   1", "step 15/45"], ["epoch   2", "step 30/45"]]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert ({row["kind"] for row in rows}, sum(row["samples"] for row in rows)) == ({"step"}, 180)
    first = done.stdout.splitlines()[0]
    last = np.average([row["loss"] for row in rows[-15:]], weights=[row["samples"] for row in rows[-15:]])
    mean = precise_span(float(np.mean([row["seconds"] for row in rows])))
    assert first.startswith(f"finished at step 45 of 45, mean loss {last:.4g}, {mean} (median ")
    refused = pipetrain_here("evaluate", run)
    assert (refused.returncode, "no validation rows" in refused.stderr) == (2, True)
    assert pipetrain_here("evaluate", run, "--data", tmp_path / "d.csv").returncode == 0


def test_a_run_without_validation_has_no_figures_of_it(tmp_path: Path) -> None:
    path = job_file(tmp_path, mixed(tmp_path), validation=0)
    done = pipetrain_here("train", path, "--local", "--run-dir", tmp_path / "run", "--json", "--track", "tensorboard")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["kind"] for row in rows[:-1]} == {"step"}
    assert [rows[-1][name] for name in ("validation_loss", "validation_accuracy")] == [None, None]
    written = b"".join(file.read_bytes() for file in (tmp_path / "run" / "tensorboard").rglob("*") if file.is_file())
    assert (b"train" in written, b"validation/loss" in written) == (True, False)
    plan = pipetrain_here("plan", path, "--json")
    assert json.loads(plan.stdout)["data"][0].endswith("60 rows train, no validation")


def test_text_may_have_no_validation_or_a_number_of_rows(tmp_path: Path) -> None:
    text = table(tmp_path, "hello world " * 100, "t.txt")
    layers = [{"embedding": {"units": 4}}, {"linear": {"units": "classes"}}]
    spec = table_job(text, model={"layers": layers}, data={"block": 8, "validation": 0})
    data = load_data(spec)
    assert (len(data.train), len(data.validation)) == ((1200 - 1) // 8, 0)
    assert data.said[0] == ("text of characters, a vocabulary of 8 · rows of 8 tokens · 149 rows train, no validation")
    some = load_data(spec.replace(data__validation=5))
    assert (len(some.train), len(some.validation)) == ((1200 - 41 - 1) // 8, 5)
    path = tmp_path / "job.yaml"
    path.write_text(write_yaml(spec.document()))
    done = pipetrain_here("train", path, "--local", "--run-dir", tmp_path / "run")
    assert (done.returncode, "perplexity" in done.stdout + done.stderr) == (0, False)


def test_what_is_read_is_said_by_train_and_plan_and_kept_in_the_run(tmp_path: Path) -> None:
    path, run = job_file(tmp_path, mixed(tmp_path)), tmp_path / "run"
    rules = load_data(load_job(path)).preprocessing
    assert rules is not None
    said = [
        "inputs (3): age, mass, side · target: tree (classes: elm, fir, oak) · 48 rows train, 12 validation",
        "left out (1): seen (data.columns says so)",
        f"filled in (1): age (5 empty cells, each with the median {rules.inputs[0].fill:.4g})",
    ]
    done = pipetrain_here("train", path, "--local", "--run-dir", run)
    assert [line for line in done.stderr.splitlines() if line in said] == said
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [event["detail"] for event in events if event["event"] == "data"] == said
    assert pipetrain_here("plan", path).stdout.splitlines()[:3] == said
    assert json.loads(pipetrain_here("plan", path, "--json").stdout)["data"] == said
    assert load_job(run / "job.yaml").data.target == ("tree",)


def test_arrays_are_said_too(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.arange(40.0).reshape(10, 4), y=np.arange(10) % 2)
    said = load_data(table_job(tmp_path / "d.npz", units=2, model={"input": [4]})).said
    assert said == ("inputs: 4 numbers a row (x) · target: 1 label a row (y) · 8 rows train, 2 validation",)


def test_long_lists_are_folded(tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(3000)]
    path = table(tmp_path, ",".join([*names, "y"]) + "\n" + 6 * (",".join(["1"] * 3000) + ",2\n"))
    (line,) = load_data(table_job(path, "mse", 1)).said[:1]
    assert line.startswith("inputs (3,000): c0, c1, ")
    assert " and 2,980 more · target: y (numbers)" in line
