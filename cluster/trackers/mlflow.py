"""A run in MLflow: the job's entries as parameters, its rows as metrics, in batches.

The experiment is the job's name. What a library of a tracker prints, sends home or tries for minutes is not wanted in a
training run, so its variables have other defaults here; a variable that is set stays as it is.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from cluster.trackers.tracker import Outcome, Point, RunFacts

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

T = TypeVar("T")

_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
_STATUS: Mapping[Outcome, str] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
_METRICS_A_BATCH = 1000  # what MLflow takes in a request, of each
_PARAMETERS_A_BATCH = 100
_PARAMETER_CHARACTERS = 6000
_RUN_TAG, _ATTEMPT_TAG = "pipetrain.run", "pipetrain.attempt"


class MLflow:
    """One run at the tracking server or database `uri`."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._client: MlflowClient | None = None
        self._run = ""

    def start(self, run: RunFacts) -> None:
        """See Tracker."""
        for name, value in _DEFAULTS.items():
            os.environ.setdefault(name, value)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=self._uri)
        experiment = _experiment(client, run.name)
        _end_lost_attempts(client, experiment, run)
        tags = {_RUN_TAG: run.run, _ATTEMPT_TAG: str(run.attempt)}
        self._run = client.create_run(experiment, run_name=run.run, tags=tags).info.run_id
        self._client = client
        for part in _batches(parameters(run.document), _PARAMETERS_A_BATCH):
            client.log_batch(self._run, params=[Param(name, value) for name, value in part])

    def write(self, points: Sequence[Point]) -> None:
        """See Tracker."""
        from mlflow.entities import Metric

        assert self._client is not None, "it was started"
        metrics = (
            Metric(name, value, round(1000 * point.time), point.step)
            for point in points
            for name, value in point.values.items()
        )
        for part in _batches(metrics, _METRICS_A_BATCH):
            self._client.log_batch(self._run, metrics=part)

    def close(self, outcome: Outcome) -> None:
        """See Tracker."""
        assert self._client is not None, "it was started"
        self._client.set_terminated(self._run, _STATUS[outcome])


def parameters(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The job's entries, each with its path: `("training.epochs", "30")`. Lists stand as JSON."""
    for name, value in document.items():
        if isinstance(value, Mapping) and value:
            yield from parameters(value, f"{prefix}{name}.")
            continue
        text = value if isinstance(value, str) else json.dumps(value)
        if len(text) > _PARAMETER_CHARACTERS:
            text = text[: _PARAMETER_CHARACTERS - 1] + "…"
        yield f"{prefix}{name}", text


def _batches(items: Iterable[T], most: int) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, most)):
        yield batch


def _experiment(client: MlflowClient, name: str) -> str:
    from mlflow.exceptions import MlflowException

    for last in (False, True):
        found = client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(client.create_experiment(name))
        except MlflowException:  # another run of the same name made it meanwhile
            if last:
                raise
    raise AssertionError("the second try returns or raises")


def _end_lost_attempts(client: MlflowClient, experiment: str, run: RunFacts) -> None:
    """Runs of earlier attempts, whose processes are gone, do not run any more."""
    if run.attempt == 1:
        return
    query = f"tags.`{_RUN_TAG}` = '{run.run}' and attributes.status = 'RUNNING'"
    for lost in client.search_runs([experiment], filter_string=query):
        client.set_terminated(lost.info.run_id, "FAILED")
