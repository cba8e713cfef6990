"""Records a run in MLflow: the job's entries as parameters, its rows as metrics, in batches.

The job's name is the name of the experiment. Some of MLflow's environment variables get other defaults, so that MLflow
prints nothing, sends no telemetry and does not retry for minutes; a variable that is set is not changed.

[Note: points that stay] MLflow cannot forget a point. A run that goes on does so in the same run of MLflow, and a step
that is there already is not recorded again: it would have the same bits. Only if the job was changed so that the steps
which are made again may differ, a new run of MLflow begins, with all rows up to there.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cluster.trackers.rules import only_public
from cluster.trackers.tracker import Outcome, Point, TrackedRun
from coordinator import run_files

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun
    from mlflow.tracking import MlflowClient

T = TypeVar("T")

_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
_STATUS: Mapping[Outcome, str] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
_METRICS_A_BATCH = 1000  # MLflow's limits for one request
_PARAMETERS_A_BATCH = 100
_PARAMETER_CHARACTERS = 6000
_TAG_CHARACTERS = 5000
_SAME_BITS = ("name", "pipeline", "resources", "checkpoint", "recovery")
"""The sections of a job that change no point, apart from times."""
_RUN_TAG, _ATTEMPT_TAG, _PROCESS_TAG = "pipetrain.run", "pipetrain.attempt", "pipetrain.process"


class MLflow:
    """A run at the tracking server or database `uri`. `public_only`: the server must have a public address."""

    def __init__(self, uri: str, *, public_only: bool = False) -> None:
        self._uri, self._public_only = uri, public_only
        self._client: MlflowClient | None = None
        self._run = ""
        self._mark: Path | None = None

    def start(self, run: TrackedRun) -> Mapping[str, int]:
        """See Tracker. See [Note: points that stay]."""
        with only_public(self._public_only):
            return self._start(run)

    def _start(self, run: TrackedRun) -> Mapping[str, int]:
        self._client = client = _client(self._uri)
        earlier = self._earlier(run) if run.after or run.attempt > 1 else None
        if earlier is None:
            end_open_run(run.folder, "failed")  # of an earlier run, whose processes are gone
        experiment = _experiment(client, run.name)
        _end_lost_runs(client, experiment, but="" if earlier is None else earlier.info.run_id)
        tags = {_RUN_TAG: run.run, _ATTEMPT_TAG: str(run.attempt), _PROCESS_TAG: this_process()}
        if earlier is None:
            self._run = client.create_run(experiment, run_name=run.run, tags=tags).info.run_id
        else:
            self._run = earlier.info.run_id
            client.update_run(self._run, status="RUNNING")
        self._mark = run.folder / run_files.MLFLOW_OPEN
        run.folder.mkdir(parents=True, exist_ok=True)
        where = {"uri": self._uri, "run": self._run, "cwd": os.getcwd()}  # a database's path may be relative
        for mark in (self._mark, run.folder / run_files.MLFLOW_RUN):
            _write_mark(mark, {**where, "public_only": self._public_only})
        if earlier is None:
            self._log_parameters(parameters(run.document))
            return {}
        for name, value in {**tags, **_what_changed(earlier, run)}.items():
            client.set_tag(self._run, name, value)
        known = earlier.data.params
        self._log_parameters((name, value) for name, value in parameters(run.document) if name not in known)
        return _last_steps(earlier)

    def _log_parameters(self, found: Iterable[tuple[str, str]]) -> None:
        from mlflow.entities import Param

        assert self._client is not None, "it was started"
        for part in _batches(found, _PARAMETERS_A_BATCH):
            self._client.log_batch(self._run, params=[Param(name, value) for name, value in part], synchronous=True)

    def _earlier(self, run: TrackedRun) -> MlflowRun | None:
        """Return the run in which this run goes on; None if there is none, or if it has points that are not true any
        more."""
        from mlflow.exceptions import MlflowException

        assert self._client is not None, "it was started"
        content = _read_mark(run.folder / run_files.MLFLOW_RUN)
        if content is None or content["uri"] != self._uri:
            return None
        if not self._uri.startswith(("http://", "https://")) and content["cwd"] != os.getcwd():
            return None  # a relative path is another database there
        try:
            found = self._client.get_run(content["run"])
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        later = any(step > run.after for step in _last_steps(found).values())
        if found.info.lifecycle_stage != "active" or (later and _what_changed(found, run)):
            return None
        return found

    def write(self, points: Sequence[Point]) -> None:
        """See Tracker."""
        from mlflow.entities import Metric

        assert self._client is not None, "it was started"
        metrics = (
            Metric(name, value, round(1000 * point.time), point.step)
            for point in points
            for name, value in point.values.items()
        )
        with only_public(self._public_only):
            for part in _batches(metrics, _METRICS_A_BATCH):
                self._client.log_batch(
                    self._run, metrics=part, synchronous=True
                )  # synchronous: only_public watches this thread

    def close(self, outcome: Outcome) -> None:
        """See Tracker."""
        assert self._client is not None, "it was started"
        with only_public(self._public_only):
            self._client.set_terminated(self._run, _STATUS[outcome])
        if self._mark is not None:
            self._mark.unlink(missing_ok=True)


def end_open_run(folder: Path, outcome: Outcome, *, in_its_folder: bool = False) -> None:
    """End the run in MLflow that is still open by the run directory, if any. `in_its_folder`: change to the working
    directory of the run's process first, because a database's path may be relative. This changes the working directory
    of the whole process."""
    mark = folder.absolute() / run_files.MLFLOW_OPEN
    content = _read_mark(mark)
    if content is not None:
        if in_its_folder and os.path.isdir(content["cwd"]):
            os.chdir(content["cwd"])
        with only_public(content["public_only"]):
            client = _client(content["uri"])
            if client.get_run(content["run"]).info.status == "RUNNING":
                client.set_terminated(content["run"], _STATUS[outcome])
    mark.unlink(missing_ok=True)


def _read_mark(mark: Path) -> dict[str, Any] | None:
    """Return the content of a file of `_write_mark`; None if there is none, or if it is damaged, as by a full disk."""
    try:
        content = json.loads(mark.read_text(encoding="utf-8"))
        texts = {name: str(content[name]) for name in ("uri", "run", "cwd")}
        return {**texts, "public_only": bool(content.get("public_only", False))}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _last_steps(run: MlflowRun) -> dict[str, int]:
    """Return the last step of each metric of a run."""
    return {metric.key: int(metric.step) for metric in run.data.to_proto().metrics}


def _what_changed(earlier: MlflowRun, run: TrackedRun) -> dict[str, str]:
    """Return a tag with the entries of the job that change what a step or an evaluation gives, and are others than in
    the earlier run; none if there is no such entry. MLflow's parameters cannot be changed."""
    before, now = earlier.data.params, dict(parameters(run.document))
    names = [name for name in dict.fromkeys([*before, *now]) if name.partition(".")[0] not in _SAME_BITS]
    changed = [f"{n}: {before.get(n)} → {now.get(n)}" for n in names if before.get(n) != now.get(n)]
    return {f"pipetrain.after_step_{run.after}": "; ".join(changed)[:_TAG_CHARACTERS]} if changed else {}


def _write_mark(mark: Path, content: Mapping[str, Any]) -> None:
    """Write a file that only its user can read, because the URI may contain a password."""
    descriptor = os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as opened:
        json.dump(content, opened)


def this_process() -> str:
    """Return the host, id and start time of this process. Process ids are reused, so the id alone is not enough."""
    return f"{os.uname().nodename}:{os.getpid()}:{_started(os.getpid())}"


def _started(pid: int) -> str:
    """Return when a process started, in the kernel's ticks; "" if it does not exist."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _client(uri: str) -> MlflowClient:
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def parameters(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the job's entries with their paths, such as `("training.epochs", "30")`. A list is written as JSON."""
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


def _end_lost_runs(client: MlflowClient, experiment: str, *, but: str = "") -> None:
    """End runs of this host whose process is gone, because `pipetrain train` was killed before it could end them; all
    but the given one."""
    host = os.uname().nodename
    query = f"tags.`{_PROCESS_TAG}` LIKE '{host}:%' and attributes.status = 'RUNNING'"
    for found in client.search_runs([experiment], filter_string=query):
        _, pid, started = found.data.tags[_PROCESS_TAG].rsplit(":", 2)
        if found.info.run_id != but and pid.isdigit() and _started(int(pid)) != started:
            client.set_terminated(found.info.run_id, "FAILED")
