"""What callers see of a job that goes on after Ray was lost."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from tests.service_units.scripted import Scripted, scripted

_ROW = {"kind": "step", "epoch": 1, "samples": 4, "loss": 1.0, "seconds": 0.1, "bubble": 0.0, "grad_norm": 1.0}


def _write_rows(service: Scripted, first: int, last: int) -> None:
    with (service.home.run_directory("job1") / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps({**_ROW, "step": step}) + "\n" for step in range(first, last + 1))


def test_a_job_that_goes_on_is_running_at_its_step(tmp_path: Path) -> None:
    """kubeflow/sdk#803: the state of a job that was resumed said "created"."""

    async def play() -> None:
        async with scripted(tmp_path / "home") as service:

            def told() -> tuple[str, int, int]:
                record = service.jobs.record("job1")
                return record.state.name, record.attempt, record.step

            await service.submit()
            await service.until(lambda: service.state() == "STARTING")
            service.writes("started", workers=[])
            await service.until(lambda: service.state() == "RUNNING")
            _write_rows(service, 1, 40)
            await service.until(lambda: told() == ("RUNNING", 1, 40), told)
            await service.jobs.cluster_lost("Ray was lost")
            await service.until(lambda: told()[:2] == ("STARTING", 2), told)
            service.writes("resumed", attempt=2, step=30, steps_lost=10, time="2026-01-02T03:04:05+00:00")
            await service.until(lambda: told() == ("STARTING", 2, 30), told)
            service.writes("started", attempt=2, workers=[])
            await service.until(lambda: told() == ("RUNNING", 2, 30), told)
            _write_rows(service, 1, 31)
            await service.until(lambda: told() == ("RUNNING", 2, 31), told)
            assert service.jobs.board.jobs["job1"].survival.steps_again == 10

    asyncio.run(play())
