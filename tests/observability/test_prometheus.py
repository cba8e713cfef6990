"""A real Prometheus scrapes a real service: every query of every panel has a result, and alerts fire."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from benchmarks.recorded_jobs import classifier
from cluster.client import Job
from cluster.service.home import Home
from cluster.service.metrics_jobs import label_of
from tests.observability.prometheus import (
    Prometheus,
    needs_prometheus,
    needs_promtool,
    running_prometheus,
    selectors,
)
from tests.observability.test_alerts import RULES
from tests.observability.test_dashboards import BOARDS, PANELS
from tests.observability.test_exposition import FAMILIES, OPENMETRICS, parse_openmetrics
from tests.ports import free_ports
from tests.service.running import Service, in_background, until, wait_for

pytestmark = needs_prometheus
_START_S = 150.0
_ANSWERS_S = 60.0
_RANGE_S = 8
OF_TEXT = ("pipetrain_validation_perplexity", "pipetrain_validation_bits_per_byte")

T = TypeVar("T")


@dataclass(frozen=True)
class Scene:
    """The scraped service: a running job of two stages that writes checkpoints and has recovered from the loss of a
    worker, two failed jobs, with a NaN and with a lost worker, and a running job on text."""

    prometheus: Prometheus
    http: str
    running: Job
    not_finite: Job
    lost: Job
    text: Job


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("scene")
    service = Service(folder / "home", "--workers", "4")
    service.up()
    try:
        where = Home.read(service.home.service_file)
        assert where is not None
        with running_prometheus(folder, free_ports(1)[0], where["http"]) as prometheus:
            wait_for(lambda: bool(prometheus.instant("up == 1")), "Prometheus never reached the service")
            jobs = _submit(service, folder)
            failures = "count(pipetrain_job_failure_info) == 2"
            wait_for(lambda: bool(prometheus.instant(failures)), "the failures were never scraped", _ANSWERS_S)
            yield Scene(prometheus, where["http"], *jobs)
            for job in (jobs[0], jobs[-1]):
                job.stop(now=True).wait(timeout=60)
    finally:
        service.down()


def _submit(service: Service, folder: Path) -> tuple[Job, Job, Job, Job]:
    long = {**classifier(folder, stages=2, epochs=100_000).document(), "checkpoint": {"every_seconds": 1.0}}
    one_stage = {**long, "pipeline": {"stages": 1}, "recovery": {"max_restarts": 0}}
    running, lost, not_finite = map(service.client.submit, (long, one_stage, _overflowing(folder)))
    until(lost, "RUNNING", seconds=_START_S)
    (started,) = (event for event in lost.events() if event.kind == "started")
    os.kill(started.details["workers"][0]["pid"], signal.SIGKILL)
    until(running, "RUNNING", seconds=_START_S)
    assert until(not_finite, "FAILED", "SUCCEEDED", seconds=_START_S).state == "FAILED"
    assert until(lost, "FAILED", "STOPPED").state == "FAILED", lost.reason
    text = until(service.client.submit(_on_text(folder)), "RUNNING", seconds=_START_S)  # in the place of a failed job
    _lose_a_worker(running)
    in_background(running), in_background(text)
    return running, not_finite, lost, text


def _lose_a_worker(job: Job) -> None:
    """Kill a worker after a checkpoint, and wait until the job has made all that was lost again."""

    def has(kind: str) -> Callable[[], bool]:
        return lambda: any(event.kind == kind for event in job.events())

    wait_for(has("checkpoint"), "the job writes no checkpoint", _ANSWERS_S)
    (started,) = (event for event in job.events() if event.kind == "started")
    os.kill(started.details["workers"][1]["pid"], signal.SIGKILL)
    wait_for(has("recovered"), "the job does not go on", _ANSWERS_S)
    wait_for(has("caught up"), "the lost steps are not made again", _ANSWERS_S)


def _on_text(folder: Path) -> dict[str, Any]:
    (folder / "words.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 40)
    return {
        "name": "words",
        "model": {"layers": [{"embedding": {"units": 8}}, {"linear": {"units": "classes"}}], "loss": "cross_entropy"},
        "data": {"source": str(folder / "words.txt"), "block": 8},
        "training": {"epochs": 100_000, "batch_size": 16, "optimizer": {"sgd": {"learning_rate": 0.1}}},
    }


def _overflowing(folder: Path) -> dict[str, Any]:
    """Return a job whose learning rate is far too large, so that its values overflow within a few steps."""
    document = classifier(folder, stages=1, epochs=50).document()
    document["training"]["optimizer"] = {"sgd": {"learning_rate": 1e30}}
    document["model"]["layers"] = [{"linear": {"units": 8}}, {"linear": {"units": 2}}]
    return document


def _filled(expr: str, job: str) -> str:
    """Return a query as Grafana sends it."""
    for name, value in (
        ("$__rate_interval", "6s"),
        ("$__interval", "2s"),
        ("$__range", "2m"),
        ("$job", job),
        ("$stage", ".*"),
    ):
        expr = expr.replace(name, value)
    assert not re.search(r"\$[a-z_]", expr), expr
    return expr


def _answer(scene: Scene, target: dict[str, Any], job: str) -> list[dict[str, Any]]:
    """Wait until the target has a series with a value; return all such series."""
    expr = _filled(target["expr"], job)

    def filled() -> list[dict[str, Any]]:
        found = scene.prometheus.instant(expr) if target["instant"] else scene.prometheus.range(expr, _RANGE_S)
        return [series for series in found if series["values"]]

    return _settled(filled, bool)


def _settled(look: Callable[[], T], wanted: Callable[[T], bool]) -> T:
    """Return a value once it is as wanted; after a time limit, return it as it is, so that an assertion shows it."""
    deadline = time.monotonic() + _ANSWERS_S
    while not wanted(found := look()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


@pytest.mark.parametrize(
    ("uid", "panel"),
    [(board["uid"], panel) for board, panel in PANELS],
    ids=lambda v: v if isinstance(v, str) else v["title"],
)
def test_every_query_of_every_panel_has_an_answer(scene: Scene, uid: str, panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        of_text = any(name in target["expr"] for name in OF_TEXT)
        found = _answer(scene, target, scene.text.id if of_text else scene.running.id)
        assert found, f"{panel['title']}, {target['refId']}: {target['expr']} is empty"
        if panel["type"] == "stat":
            assert len(found) == 1, f"{panel['title']} shows one value, and has {len(found)}"
        legend = target["legendFormat"]
        for label in [part.partition("}}")[0] for part in legend.split("{{")[1:]]:
            assert all(label in series["metric"] or label in ("cause",) for series in found), f"{legend}: no {label}"


@pytest.mark.parametrize(
    "mark", [mark for board in BOARDS for mark in board["annotations"]["list"]], ids=lambda mark: mark["name"]
)
def test_every_annotation_can_be_drawn(scene: Scene, mark: dict[str, Any]) -> None:
    expr, jobs = mark["target"]["expr"], (scene.running, scene.not_finite)

    def there(selector: str) -> bool:
        return any(scene.prometheus.has_series(_filled(selector, job.id)) for job in jobs)

    def drawn() -> list[dict[str, Any]]:
        return [series for job in jobs for series in scene.prometheus.range(_filled(expr, job.id), _RANGE_S)]

    for selector in selectors(expr):
        wait_for(partial(there, selector), f"no series of {selector}", _ANSWERS_S)
    if mark["useValueForTime"]:
        found = _settled(drawn, bool)
        assert found, "a job began and one failed, so there are annotations"
        times = [float(value) / 1000 for series in found for _, value in series["values"]]
        assert all(time.time() - 3600 < at < time.time() + 5 for at in times), "recent times in milliseconds"
    else:
        drawn()  # raises for a wrong query


def test_the_figures_of_a_recovery_are_those_that_the_job_tells(scene: Scene) -> None:
    (lost, recovered) = (event for event in scene.running.events() if event.kind in ("worker lost", "recovered"))
    again = recovered.details
    told = {
        "pipetrain_recoveries_total": 1.0,
        "pipetrain_last_recovery_seconds": again["first_step_s"],
        "pipetrain_recovery_seconds_total": again["first_step_s"],
        "pipetrain_steps_made_again_total": again["steps_lost"],
        f'pipetrain_workers_lost_total{{cause="{label_of(lost.details["loss"])}"}}': 1.0,
        "sum by (job) (pipetrain_workers_lost_total)": 1.0,
    }

    def values(query: str) -> list[float]:
        series = scene.prometheus.instant(f'({query}) and on (job) pipetrain_job_info{{job="{scene.running.id}"}}')
        return [float(one["values"][0][1]) for one in series]

    for query, value in told.items():
        assert _settled(partial(values, query), bool) == [value], query
    (spent,) = _settled(
        partial(values, 'max by (job) (pipetrain_stage_seconds_total{kind="recovery"})'), lambda found: found > [0.0]
    )
    assert again["first_step_s"] * 0.9 < spent < again["first_step_s"] + 10, "the workers' accounts have it, too"
    (saved,) = values('sum by (job) (pipetrain_stage_seconds_total{kind="checkpoint"})')
    assert saved > 0


def test_the_choices_of_the_variables(scene: Scene) -> None:
    queries = {
        v["name"]: v["definition"] for board in BOARDS for v in board["templating"]["list"] if v["type"] == "query"
    }
    wanted = {"job": {job.id for job in (scene.running, scene.not_finite, scene.lost, scene.text)}, "stage": {"0", "1"}}

    def choices() -> dict[str, set[str]]:
        found = {}
        for name, query in queries.items():
            selector, _, label = query.removeprefix("label_values(").removesuffix(")").rpartition(", ")
            series = scene.prometheus.instant(
                f"group by ({label}) (last_over_time({_filled(selector, scene.running.id)}[5m]))"
            )
            found[name] = {one["metric"][label] for one in series}
        return found

    assert _settled(choices, lambda found: found == wanted) == wanted


def test_every_alert_is_evaluated_and_reads_series_that_there_are(scene: Scene) -> None:
    wait_for(lambda: all(rule["health"] == "ok" for rule in scene.prometheus.rules()), "a rule was never evaluated")
    rules = scene.prometheus.rules()
    assert [(rule["name"], rule["health"], rule.get("lastError")) for rule in rules] == [
        (rule["alert"], "ok", None) for rule in RULES
    ]
    for rule in RULES:
        for selector in selectors(rule["expr"]):
            there = partial(scene.prometheus.has_series, selector)
            wait_for(there, f"{rule['alert']}: no series of {selector}", _ANSWERS_S)


@pytest.mark.parametrize(
    ("alert", "which"), [("PipetrainLossNotFinite", "not_finite"), ("PipetrainWorkerLost", "lost")]
)
def test_alerts_fire_for_the_job_that_failed_so(scene: Scene, alert: str, which: str) -> None:
    firing: list[dict[str, Any]] = []

    def fires() -> bool:
        (rule,) = (rule for rule in scene.prometheus.rules() if rule["name"] == alert)
        firing[:] = [found for found in rule["alerts"] if found["state"] == "firing"]
        return bool(firing)

    wait_for(fires, f"{alert} never fires", _ANSWERS_S)
    job: Job = getattr(scene, which)
    assert [found["labels"]["job"] for found in firing] == [job.id]
    assert all(job.id in found["annotations"]["summary"] for found in firing)


def test_no_alert_tells_of_the_job_that_runs(scene: Scene) -> None:
    told = [found for rule in scene.prometheus.rules() for found in rule["alerts"] if found["state"] == "firing"]
    assert [found for found in told if found["labels"].get("job") == scene.running.id] == []


def _scrape(scene: Scene, accept: str) -> str:
    request = urllib.request.Request(f"http://{scene.http}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.headers["content-type"].startswith(accept.partition(";")[0])
        text: str = answer.read().decode()
        return text


def test_the_real_output_has_every_metric(scene: Scene) -> None:
    wanted = {family.name.removesuffix("_total") if family.kind == "counter" else family.name for family in FAMILIES}

    def names() -> set[str]:  # some exist only after a job's first steps
        return {family.name for family in parse_openmetrics(_scrape(scene, OPENMETRICS)) if family.samples}

    assert _settled(names, lambda found: found >= wanted) == wanted


@needs_promtool
def test_promtool_accepts_the_real_output(scene: Scene) -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=_scrape(scene, "text/plain"),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if "bits_per_byte" not in line]  # of a unit that is a ratio
    assert (complaints, done.stdout) == ([], "")


def test_calls_are_counted_by_method_and_code(scene: Scene) -> None:
    def counts() -> dict[tuple[str, str], float]:
        series = scene.prometheus.instant("sum by (method, code) (pipetrain_rpcs_total)")
        return {(one["metric"]["method"], one["metric"]["code"]): float(one["values"][0][1]) for one in series}

    found = _settled(counts, bool)  # none if a scrape took too long
    assert found["Submit", "OK"] == 4
    assert found["Get", "OK"] > 3
