"""A service whose disk is full for a while, during the training of a job."""

from __future__ import annotations

from pathlib import Path

from tests.service.conftest import JobMaker
from tests.service.running import Service, until, wait_for
from tests.small_disk import fill, small_disk

FULL = "no space left on device"


def test_a_full_disk_is_told_everywhere_and_all_goes_on_when_there_is_room(tmp_path: Path, small: JobMaker) -> None:
    with small_disk(tmp_path / "disk", "24m") as disk:
        service = Service(disk / "home", "--workers", "1")
        service.up()
        try:
            client = service.client
            job = until(client.submit(small(100_000), upload=False), "RUNNING")
            filler = fill(disk)
            wait_for(lambda: FULL in job.refresh().reason, "the job does not say that the disk is full")
            wait_for(lambda: any(FULL in problem for problem in client.cluster().problems), "nor does the service")
            filler.unlink()
            assert until(job, "FAILED").reason.startswith(FULL)
            assert client.submit(small(), upload=False).wait(timeout=120).state == "SUCCEEDED"
            assert client.cluster().problems == ()
        finally:
            said = service.down()
    assert said == "down\n"
