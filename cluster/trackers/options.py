"""Reads which trackers a job uses, from `--track` or `tracking` in the job file, and checks that they are installed."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from cluster.trackers.tracker import Tracker
from coordinator.job.spec import JobSpec
from stages.errors import UserMistake

URI_VARIABLE = "MLFLOW_TRACKING_URI"
_PACKAGES = {"tensorboard": ("tensorboard",), "mlflow": ("mlflow", "sqlalchemy", "alembic")}


def tracking_of(tracks: Iterable[str], environment: Mapping[str, str] = os.environ) -> dict[str, bool | str]:
    """Return the entries of `tracking` for `--track tensorboard[:DIR]` and `--track mlflow[:URI]`.

    The default URI is the value of MLFLOW_TRACKING_URI. Raises UserMistake.
    """
    found: dict[str, bool | str] = {}
    for track in tracks:
        name, colon, where = track.partition(":")
        if name not in _PACKAGES or (colon and not where):
            raise UserMistake(f"--track {track}: must be tensorboard, tensorboard:DIR, mlflow or mlflow:URI")
        if name in found:
            raise UserMistake(f"--track {track}: {name} is named twice")
        if name == "tensorboard":
            found[name] = where or True
            continue
        found[name] = where or environment.get(URI_VARIABLE, "")
        if not found[name]:
            raise UserMistake(
                f"--track mlflow: to which server or database? Write mlflow:URI, such as mlflow:http://HOST:5000 or "
                f"mlflow:sqlite:///mlflow.db, or set {URI_VARIABLE}"
            )
    return found


def require_trackers(spec: JobSpec) -> None:
    """Raise UserMistake with a line for each tracker of the job whose package is not installed here."""
    missing = [
        f"tracking.{name}: its package is not installed on {os.uname().nodename}; pip install 'pipetrain[{name}]'"
        for name in spec.tracking.document()
        if any(importlib.util.find_spec(package) is None for package in _PACKAGES[name])
    ]
    if missing:
        raise UserMistake("\n".join(missing))


def make_trackers(spec: JobSpec, *, public_only: bool = False) -> dict[str, Tracker]:
    """Return the trackers of a job by name, before their start. `public_only`: a server must have a public address."""
    found: dict[str, Tracker] = {}
    wanted = spec.tracking
    if wanted.tensorboard:
        from cluster.trackers.tensorboard import TensorBoard

        found["tensorboard"] = TensorBoard(None if wanted.tensorboard is True else Path(wanted.tensorboard))
    if wanted.mlflow:
        from cluster.trackers.mlflow import MLflow

        found["mlflow"] = MLflow(wanted.mlflow, public_only=public_only)
    return found
