"""A run writes its plan's schedule before its first step."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from cluster.dashboard.planned import planned
from tests.jobs import pipetrain_here


def test_a_run_with_a_searched_schedule_leaves_its_dry_run_and_its_gain(tmp_path: Path) -> None:
    training = {"epochs": 1, "batch_size": 500, "micro_batches": 4, "optimizer": {"sgd": {"learning_rate": 0.01}}}
    document = {
        "model": {"input": [64], "layers": [{"linear": {"units": 10}}] * 3, "loss": "cross_entropy"},
        "data": {"source": "digits"},
        "training": training,
        "pipeline": {"stages": 3, "schedule": "auto"},
    }
    job = tmp_path / "job.yaml"
    job.write_text(yaml.safe_dump(document))
    assert pipetrain_here("train", str(job), "--local", "--run-dir", tmp_path / "run").returncode == 0
    content = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert (content["attempt"], content["schedule"]) == (1, "auto")
    told = json.loads(pipetrain_here("plan", str(job), "--json").stdout)
    assert {key: told[key] for key in ("schedule", "searched", "bubble", "dry_run")} == {
        key: content[key] for key in ("schedule", "searched", "bubble", "dry_run")
    }
    found = planned(content)
    assert found.picture is not None
    assert found.picture.n_workers == 3
    assert found.gain.startswith("schedule auto: a step is ")
