"""A table that pandas wrote becomes a trained network in three commands, as good as scikit-learn's of the same size."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn import datasets, metrics
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

from cluster.data.splitting import split_rows
from coordinator.job.spec import load_job
from tests.jobs import pipetrain_here as pipetrain

CLOSE = 0.02
"""Two points of accuracy, or of R²."""


def _ran(*arguments: str | Path) -> str:
    done = pipetrain(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _frame(name: str) -> tuple[pd.DataFrame, list[str]]:
    found = getattr(datasets, f"load_{name}")(as_frame=True)
    return found.frame, list(found.target.columns) if name == "linnerud" else ["target"]


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("name", ["wine", "breast_cancer", "iris", "diabetes", "linnerud"])
def test_three_commands_train_as_well_as_scikit_learn(name: str, index: bool, tmp_path: Path) -> None:
    frame, targets = _frame(name)
    table, job, run, answers = (tmp_path / file for file in ("table.csv", "job.yaml", "run", "answers.csv"))
    frame.to_csv(table, index=index)
    named = [] if targets == ["target"] else [part for target in targets for part in ("--target", target)]
    _ran("data", table, "--write", job, *named)
    _ran("train", job, "--local", "--run-dir", run)
    _ran("predict", run, "--input", table, "--output", answers)
    found = pd.read_csv(answers)
    assert len(found) == len(frame)

    classes = targets == ["target"] and frame["target"].nunique() <= 3
    train, validation = _split(job, frame, classes=classes)
    y = frame[targets].to_numpy()
    ours = found[[c for c in found if c.startswith("prediction")]].to_numpy()
    theirs = _scikit_learn(job, frame.drop(columns=targets).to_numpy(), y, train, classes=classes)
    score = metrics.accuracy_score if classes else metrics.r2_score
    assert score(y[validation], ours[validation]) >= score(y[validation], theirs[validation]) - CLOSE


def _split(job: Path, frame: pd.DataFrame, *, classes: bool) -> tuple[Any, Any]:
    """The numbers of the rows on which the job trains, and of those on which it does not."""
    spec = load_job(job)
    labels = np.unique(frame["target"], return_inverse=True)[1] if classes else None
    names = () if labels is None else tuple(map(str, np.unique(labels)))
    return split_rows(spec.data, len(frame), spec.seed, classes=labels, names=names, stratify=classes)


def _scikit_learn(job: Path, x: Any, y: Any, train: Any, *, classes: bool) -> Any:
    """scikit-learn's predictions for all rows, with hidden layers of the job's size."""
    layers = yaml.safe_load(job.read_text())["model"]["layers"]
    hidden = [layer["linear"]["units"] for layer in layers if isinstance(layer, dict)][:-1]
    x = StandardScaler().fit(x[train]).transform(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if classes:
            return (
                MLPClassifier(hidden_layer_sizes=hidden, max_iter=500, random_state=0)
                .fit(x[train], y[train, 0])
                .predict(x)
            )
        scaler = StandardScaler().fit(y[train])
        model = MLPRegressor(hidden_layer_sizes=hidden, max_iter=500, random_state=0).fit(
            x[train], scaler.transform(y[train]).squeeze()
        )
        return scaler.inverse_transform(model.predict(x).reshape(y.shape))
