"""Faults on request: each kind leaves no trace in weights and rows, and is told."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from cluster.chaos.asking import inject_fault
from cluster.chaos.soak import Soak
from cluster.run.run_dir import RunDir
from cluster.run.training import Run, Where
from coordinator.chaos.story import STRUCK
from coordinator.job.spec import JobSpec, parse_job
from coordinator.train.story import LOST, RECOVERED
from stages.errors import Refused
from stages.orders import Fault
from tests.cluster.test_resume import LOCAL, gpt, results
from tests.faults.test_recovery import events, on_ray, train

__all__ = ["on_ray"]
pytestmark = pytest.mark.timeout(400)


def text_job(folder: Path, schedule: str, stages: int, **recovery: Any) -> JobSpec:
    """Tied weights, dropout, evaluations within epochs, rows of three steps."""
    document = gpt(folder).document()
    document["pipeline"] |= {"stages": stages, "schedule": schedule}
    document["checkpoint"] = {"every_steps": 3}
    document["resources"] = {"hang_timeout": 3.0}
    document["recovery"] = {"max_restarts": 20, "backoff": 0.0, **recovery}
    return parse_job(document)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Results of the job without faults: the same for every schedule and number of stages."""
    folder = tmp_path_factory.mktemp("undisturbed")
    train(folder / "run", text_job(folder, "1f1b", 3), LOCAL)
    return results(folder / "run")


FAULTS = (
    Fault(what="slow", step=4, seconds=0.01, steps=2),
    Fault(what="kill", step=7, action="1F1"),
    Fault(what="disk-full", step=8, action="1B2"),
    Fault(what="oom", step=13, action="update"),
    Fault(what="corrupt", step=17, action="1F0"),
    Fault(what="kill", step=17, action="1B0"),
    Fault(what="partition", step=21, action="evaluation"),
    Fault(what="stop", step=26, action="1B1"),
)


def test_each_kind_of_fault_leaves_no_trace(tmp_path: Path, on_ray: Where, undisturbed: Any) -> None:
    warned = train(tmp_path / "run", text_job(tmp_path, "1f1b", 3), on_ray, {1: FAULTS})
    assert results(tmp_path / "run") == undisturbed
    struck = events(tmp_path / "run", STRUCK)
    assert [(event["kind"], event["step"], event["point"]) for event in struck] == [
        (fault.what, fault.step, fault.action or "1F0") for fault in FAULTS
    ]
    lost = [event["fault"] for event in events(tmp_path / "run", LOST)]
    assert lost == [fault.name for fault in FAULTS if fault.what in ("kill", "oom", "partition", "stop")]
    assert len(events(tmp_path / "run", RECOVERED)) == len(lost)
    print("\n".join(warned))


def test_a_run_under_way_takes_a_request_and_refuses_what_cannot_be(
    tmp_path: Path, on_ray: Where, undisturbed: Any
) -> None:
    """It is slowed down, so that it is still in its first steps when the requests come."""
    answers: list[str] = []

    def ask() -> None:
        for worker, at, step in ((7, None, None), (1, "1I0", None), (1, "1B0", 31), (1, "1B1", 29)):
            try:
                answers.append(inject_fault(tmp_path / "run", "kill", worker=worker, at=at, step=step))
            except Refused as refusal:
                answers.append(str(refusal))

    slow = Fault(what="slow", step=1, seconds=0.04, steps=28)
    run = Run.prepare(text_job(tmp_path, "1f1b", 3), on_ray, faults={0: slow})
    run_dir = RunDir.create(tmp_path / "run", run.spec)
    asking = threading.Thread(target=ask)
    try:
        for row in run.rows(run_dir):
            if row.step == 3 and not asking.ident:
                asking.start()
    finally:
        asking.join()
        run_dir.close()
    assert answers == [
        "worker 7: the job has workers 0 to 2",
        "1f1b has no 1I0, but 1F0, 1B0; worker 1 performs 1F0 1F1 1B0 1F2 1B1 1B2",
        "step 31: the job has 30 steps",
        "chaos: planned: kill of worker 1 before 1B1 of step 29",
    ]
    assert results(tmp_path / "run") == undisturbed
    struck = [(event["kind"], event["step"], event["point"]) for event in events(tmp_path / "run", STRUCK)]
    assert struck == [("slow", 1, "0F0"), ("kill", 29, "1B1")]
    with pytest.raises(Refused, match="the run finished at step 30; only a run that trains can have a fault"):
        inject_fault(tmp_path / "run", "kill", worker=0)
    assert not (tmp_path / "run" / "fault.request").exists()


def test_a_soak_ends_with_a_verdict_and_a_report(tmp_path: Path, on_ray: Where, ray: Any) -> None:
    spec = text_job(tmp_path, "interleaved-1f1b", 4).replace(training__steps=12)
    soak = Soak(spec, faults=3, seed=15)
    assert {fault.what for _, fault in soak.plan} == {"kill", "disk-full", "slow"}, "quick ones"
    report = soak.compare(tmp_path / "soak", Where(session=ray))
    assert report.differences == ()
    assert report.left == ()
    assert report.ok
    assert all(one.struck for one in report.faults)
    (killed,) = [one for one in report.faults if one.kind == "kill"]
    assert killed.found_s is not None
    assert 0 < killed.found_s < 60
    assert killed.replaced_s is not None
    assert json.loads((tmp_path / "soak" / "soak.json").read_text())["ok"] is True
