"""A job of the service with `stages: auto`: the queue counts the workers that it runs on."""

from __future__ import annotations

import json

from tests.service.conftest import JobMaker
from tests.service.running import Service


def test_a_job_gets_as_many_workers_as_the_cluster_has_and_as_make_it_faster(service: Service, small: JobMaker) -> None:
    job = service.client.submit(small(3, pipeline__stages="auto", training__micro_batches=8)).wait(check=True)
    assert job.document["pipeline"]["stages"] == "auto"
    (starting,) = (event for event in job.events() if event.kind == "starting")
    assert (starting.details["workers"], starting.details["stages"]) == (2, 2)
    alone = service.client.submit(small(3, pipeline__stages=1, training__micro_batches=8)).wait(check=True)
    models = [(service.home.run_directory(one.id) / "model.safetensors").read_bytes() for one in (job, alone)]
    assert models[0] == models[1]
    planned = service.run("plan", str(service.home.run_directory(job.id) / "job.yaml"), "--json")
    assert planned.returncode == 0, planned.stderr
    assert 1 <= len(json.loads(planned.stdout)["stages"]) <= 3
