"""The output of /metrics: both formats, Prometheus' conventions, few labels, and how long series live."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.samples import Sample

from benchmarks.recorded_jobs import jobs_of, record
from cluster.service import metric_families, store
from cluster.service.job_stats import STATS_KEPT_S
from cluster.service.jobs import Jobs
from cluster.service.metric_families import Family
from cluster.service.metrics import Metrics
from cluster.service.metrics_jobs import FAILURE_KINDS, label_of
from cluster.service.records import JobRecord
from cluster.service.survival import CAUSES, RESULTS
from coordinator.queue.job_states import Failed, Queued, Running, Succeeded
from tests.observability.conftest import RECOVERY
from tests.observability.prometheus import needs_promtool

FAMILIES: tuple[Family, ...] = metric_families.ALL
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
ALL_KINDS = [
    "forward",
    "input_gradient",
    "weight_gradient",
    "update",
    "wait",
    "send",
    "checkpoint",
    "recovery",
    "evaluation",
    "other",
]


def parse_openmetrics(text: str) -> list[Metric]:
    """Return the families of a text in OpenMetrics' format."""
    return list(openmetrics.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


def with_metrics(
    tmp_path: Path, run: Path, records: Sequence[JobRecord], look: Callable[[Jobs, Metrics], Awaitable[None]]
) -> None:
    """Make jobs of a service that follow run directories, and their metrics."""

    async def within() -> None:
        async with jobs_of(tmp_path / "home", records, run) as jobs:
            jobs.cluster_is([{"cpus": 8.0, "cpus_used": 3.0, "memory": 2**30, "memory_used": 2**29}])
            await look(jobs, Metrics(CollectorRegistry(), jobs, ray_up=lambda: True))

    asyncio.run(within())


def exposed(tmp_path: Path, run: Path, *records: JobRecord, accept: str = "text/plain") -> str:
    found = []

    async def look(jobs: Jobs, metrics: Metrics) -> None:
        text, _ = await metrics.scrape(accept)
        found.append(text.decode())

    with_metrics(tmp_path, run, records, look)
    return found[0]


def samples(text: str) -> list[Sample]:
    return [sample for family in parse_text(text) for sample in family.samples]


def values(text: str, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    return {tuple(sorted(s.labels.items())): s.value for s in samples(text) if s.name == name}


RUNNING = record("aaaa2222", stages=3)


def test_both_formats_say_the_same_and_parse(tmp_path: Path, run: Path) -> None:
    async def look(jobs: Jobs, metrics: Metrics) -> None:
        text, plain = metrics.exposition("text/plain")
        other, open_type = metrics.exposition(OPENMETRICS)
        assert plain.startswith("text/plain; version=0.0.4")
        assert open_type.startswith("application/openmetrics-text; version=1.0.0")
        in_text = {(s.name, *sorted(s.labels.items())): s.value for f in parse_text(text.decode()) for s in f.samples}
        in_other = {
            (s.name, *sorted(s.labels.items())): s.value for f in parse_openmetrics(other.decode()) for s in f.samples
        }
        assert in_text == in_other
        assert len(in_text) > 150

    with_metrics(tmp_path, run, [RUNNING], look)


def test_every_metric_is_declared_has_help_and_only_its_labels(tmp_path: Path, run: Path) -> None:
    text = exposed(tmp_path, run, RUNNING)
    by_name = {family.name: family for family in FAMILIES}
    assert len(by_name) == len(FAMILIES)
    seen = set()
    for found in parse_text(text):
        name = found.name + "_total" if found.type == "counter" else found.name
        family = by_name[name]
        assert (found.type, found.documentation) == (family.kind, family.help)
        for sample in found.samples:
            assert set(sample.labels) - {"le"} == set(family.labels)
            seen.add(name)
    # has not happened yet, or is unknown with threads as workers
    absent = {"pipetrain_job_failure_info", "pipetrain_job_end_time_seconds", "pipetrain_worker_memory_limit_bytes"}
    absent |= {"pipetrain_validation_perplexity", "pipetrain_validation_bits_per_byte"}  # its data is no text
    assert set(by_name) - seen == absent | {name for name in by_name if name.startswith("pipetrain_rpc")}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_names_follow_the_conventions(family: Family) -> None:
    assert re.fullmatch(r"pipetrain_[a-z]+(_[a-z]+)*", family.name)
    assert family.name.endswith("_total") == (family.kind == "counter")
    assert family.help.endswith(".")
    assert not re.search(r"_(ms|us|milliseconds|kb|mb|mib|percent|minutes)(_|$)", family.name)


@needs_promtool
def test_promtool_finds_nothing_to_complain_about(tmp_path: Path, run: Path) -> None:
    text = exposed(tmp_path, run, RUNNING)
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_times_sum_to_the_wall_time_of_each_worker(tmp_path: Path, run: Path) -> None:
    text = exposed(tmp_path, run, RUNNING)
    account = json.loads((run / "accounts.jsonl").read_text().splitlines()[-1])
    seconds = [s for s in samples(text) if s.name == "pipetrain_stage_seconds_total"]
    for worker, wall_us in enumerate(account["wall_us"]):
        own = [s.value for s in seconds if s.labels["worker"] == str(worker)]
        assert sum(own) == pytest.approx(wall_us / 1e6, abs=1e-9)
    assert {s.labels["kind"] for s in seconds} == set(ALL_KINDS)
    causes = {(s.labels["kind"], s.labels["cause"]) for s in seconds if s.labels["cause"]}
    assert causes == {("wait", "warmup"), ("wait", "steady"), ("wait", "drain")}


def test_figures_are_those_of_the_run(tmp_path: Path, run: Path) -> None:
    text = exposed(tmp_path, run, RUNNING)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["kind"] == "step"]
    evaluation = [row for row in rows if row["kind"] == "eval"][-1]
    account = json.loads((run / "accounts.jsonl").read_text().splitlines()[-1])
    own = ("job", RUNNING.id)

    def mean(name: str) -> Any:
        last = [row for row in steps if row["epoch"] == steps[-1]["epoch"]]
        rows = sum(row["samples"] for row in last)
        return pytest.approx(sum(row["samples"] * row[name] for row in last) / rows)

    assert values(text, "pipetrain_steps_total") == {(own,): len(steps)}
    assert values(text, "pipetrain_samples_total") == {(own,): sum(row["samples"] for row in steps)}
    assert values(text, "pipetrain_loss") == {
        (own, ("kind", "train")): mean("loss"),
        (own, ("kind", "validation")): evaluation["loss"],
    }
    assert values(text, "pipetrain_accuracy_ratio") == {
        (own, ("kind", "train")): mean("accuracy"),
        (own, ("kind", "validation")): evaluation["accuracy"],
    }
    assert values(text, "pipetrain_gradient_norm") == {(own,): steps[-1]["grad_norm"]}
    by_stage = values(text, "pipetrain_stage_bubble_ratio").values()
    assert values(text, "pipetrain_bubble_ratio") == {(own,): pytest.approx(sum(by_stage) / len(account["wall_us"]))}
    assert values(text, "pipetrain_step_duration_seconds_count") == {(own,): len(steps)}
    assert values(text, "pipetrain_step_duration_seconds_sum")[(own,)] == pytest.approx(
        sum(row["seconds"] for row in steps)
    )
    assert values(text, "pipetrain_last_step_timestamp_seconds") == {(own,): account["ended"]}
    links = {(str(a), str(b)): (messages, n) for a, b, messages, n in account["links"]}
    for name, column in (("pipetrain_link_messages_total", 0), ("pipetrain_link_bytes_total", 1)):
        found = {(k[0][1], k[2][1]): v for k, v in values(text, name).items()}
        assert found == {link: pair[column] for link, pair in links.items()}


def test_checkpoints_and_recoveries_are_those_of_the_events(tmp_path: Path, run: Path) -> None:
    text = exposed(tmp_path, run, RUNNING)
    saved = [event for event in map(json.loads, (run / "events.jsonl").open()) if event["event"] == "checkpoint"]
    own, newest = ("job", RUNNING.id), saved[-1]
    figures = {
        "checkpoint_step": newest["step"],
        "checkpoint_bytes": newest["bytes"],
        "checkpoint_write_seconds": newest["write_seconds"],
        "checkpoint_stall_seconds": newest["stall_seconds"],
        "checkpoint_timestamp_seconds": datetime.fromisoformat(newest["time"]).timestamp(),
        "recoveries_total": 1,
        "recovery_seconds_total": RECOVERY[1]["first_step_s"],
        "last_recovery_seconds": RECOVERY[1]["first_step_s"],
        "steps_made_again_total": RECOVERY[1]["steps_lost"],
    }
    assert {name: values(text, f"pipetrain_{name}") for name in figures} == {
        name: {(own,): value} for name, value in figures.items()
    }
    assert 0 < values(text, "pipetrain_checkpoint_interval_seconds")[(own,)] < 60
    assert 0 <= newest["stall_seconds"] < newest["seconds"]
    assert 0 < newest["write_seconds"] <= newest["seconds"]
    assert values(text, "pipetrain_checkpoints_total") == {
        (own, ("result", result)): len(saved) if result == "written" else 0 for result in RESULTS
    }
    lost = values(text, "pipetrain_workers_lost_total")
    assert {labels[0][1]: value for labels, value in lost.items() if value} == {"process_lost": 1}
    assert len(lost) == len(CAUSES) + 1, "each from the start, as 0"


def test_no_label_grows_with_the_run(tmp_path: Path, run: Path) -> None:
    allowed: Mapping[str, set[str]] = {
        "job": {RUNNING.id},
        "name": {RUNNING.name},
        **{place: {"0", "1", "2"} for place in ("stage", "worker", "from_worker", "to_worker")},
        "state": {"QUEUED", "STARTING", "RUNNING", "RECOVERING", "SUCCEEDED", "FAILED", "STOPPED"},
        "cause": {"", "warmup", "steady", "drain", "cluster_lost", "other", *map(label_of, CAUSES)},
        "result": set(RESULTS),
        "kind": {
            *ALL_KINDS,
            *FAILURE_KINDS,
            *("other", "train", "validation", "weights", "gradients", "optimizer", "activations"),
        },
    }
    found: dict[str, set[str]] = {}
    for sample in samples(exposed(tmp_path, run, RUNNING)):
        for label, value in sample.labels.items():
            found.setdefault(label, set()).add(value)
    assert not {"step", "micro_batch", "epoch", "action"} & set(found)
    for label in set(found) - {"le", "version", "python"}:
        assert found[label] <= allowed[label], label


def test_names_of_jobs_are_escaped_and_only_on_the_info(tmp_path: Path, run: Path) -> None:
    odd = replace(RUNNING, name='a "quoted"\n\\ name')
    for accept, parse in (("text/plain", parse_text), (OPENMETRICS, parse_openmetrics)):
        text = exposed(tmp_path / accept[:4], run, odd, accept=accept)
        named = [s for family in parse(text) for s in family.samples if "name" in s.labels]
        assert [(s.name, s.labels["name"]) for s in named] == [("pipetrain_job_info", odd.name)]


def test_the_series_of_a_job_disappear_after_its_end(tmp_path: Path, run: Path) -> None:
    async def look(jobs: Jobs, metrics: Metrics) -> None:
        ended = replace(RUNNING, state=Succeeded(attempt=1), ended_at=time.time())
        await jobs.store.write(store.update(ended, []))
        jobs.move(jobs.entries[RUNNING.id], ended)
        text = metrics.exposition()[0].decode()
        assert values(text, "pipetrain_job_state")[("job", RUNNING.id), ("state", "SUCCEEDED")] == 1
        assert values(text, "pipetrain_job_end_time_seconds") == {(("job", RUNNING.id),): ended.ended_at}
        assert values(text, "pipetrain_jobs_ended_total")[(("state", "SUCCEEDED"),)] == 1
        long_ago = replace(ended, ended_at=time.time() - STATS_KEPT_S - 1)
        await jobs.store.write(store.update(long_ago, []))
        text = Metrics(CollectorRegistry(), jobs, ray_up=lambda: True).exposition()[0].decode()
        assert RUNNING.id not in text
        assert values(text, "pipetrain_jobs")[(("state", "SUCCEEDED"),)] == 1

    with_metrics(tmp_path, run, [RUNNING], look)


def test_a_deleted_job_has_no_series(tmp_path: Path, run: Path) -> None:
    async def look(jobs: Jobs, metrics: Metrics) -> None:
        ended = replace(RUNNING, state=Succeeded(attempt=1), ended_at=time.time())
        await jobs.store.write(store.update(ended, []))
        jobs.move(jobs.entries[RUNNING.id], ended)
        assert RUNNING.id in metrics.exposition()[0].decode()
        await jobs.delete(RUNNING.id)
        assert RUNNING.id not in metrics.exposition()[0].decode()

    with_metrics(tmp_path, run, [RUNNING], look)


@pytest.mark.parametrize(("kind", "shown"), [("NonFinite", "NonFinite"), ("SomethingNew", "other")])
def test_a_failure_is_shown_by_its_kind(tmp_path: Path, run: Path, kind: str, shown: str) -> None:
    async def look(jobs: Jobs, metrics: Metrics) -> None:
        failed = replace(RUNNING, state=Failed(attempt=1, cause="so", kind=kind), ended_at=time.time())
        await jobs.store.write(store.update(failed, []))
        jobs.move(jobs.entries[RUNNING.id], failed)
        text = metrics.exposition()[0].decode()
        assert values(text, "pipetrain_job_failure_info") == {(("job", RUNNING.id), ("kind", shown)): 1}
        assert values(text, "pipetrain_job_failures_total")[(("kind", shown),)] == 1
        assert sum(values(text, "pipetrain_job_failures_total").values()) == 1

    with_metrics(tmp_path, run, [RUNNING], look)


def test_the_queue_and_the_cluster(tmp_path: Path, run: Path) -> None:
    now = time.time()
    waiting = [
        replace(record(f"wait{i}", stages=1, state=Queued()), submitted_at=now - age, attempt=0, started_at=None)
        for i, age in enumerate((500, 20))
    ]
    admitted = replace(RUNNING, submitted_at=now + 50, started_at=now + 60)  # after the start of this service
    text = exposed(tmp_path, run, *waiting, admitted)
    assert values(text, "pipetrain_jobs")[(("state", "QUEUED"),)] == 2
    assert values(text, "pipetrain_jobs")[(("state", "RUNNING"),)] == 1
    assert 500 <= values(text, "pipetrain_queue_oldest_wait_seconds")[()] < 560
    assert values(text, "pipetrain_queue_wait_seconds_count") == {(): 1}
    assert values(text, "pipetrain_queue_wait_seconds_sum")[()] == pytest.approx(10, abs=1e-3)
    assert (values(text, "pipetrain_cluster_cpus")[()], values(text, "pipetrain_cluster_cpus_used")[()]) == (8, 3)
    assert {s.labels["job"] for s in samples(text) if "job" in s.labels} == {RUNNING.id}, "waiting jobs have no series"


def test_a_job_before_its_first_step_has_few_series_and_no_invented_ones(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "events.jsonl").touch()
    text = exposed(tmp_path, tmp_path / "empty", replace(RUNNING, state=Running(attempt=1)))
    names = {s.name for s in samples(text) if "job" in s.labels}
    for absent in ("pipetrain_loss", "pipetrain_stage_seconds_total", "pipetrain_last_step_timestamp_seconds"):
        assert absent not in names
    assert values(text, "pipetrain_steps_total") == {(("job", RUNNING.id),): 0}


def test_the_documentation_has_every_metric_as_it_describes_itself() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "metrics.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `pipetrain_")]
    wanted = [
        f"| `{family.name}` | {family.kind} | {', '.join(f'`{label}`' for label in family.labels)} | {family.help} |"
        for family in FAMILIES
    ]
    assert rows == wanted
