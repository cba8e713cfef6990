"""A job's figures over the interface, the view of `top`, and streams that end with the present rows."""

from __future__ import annotations

import pytest

from cluster.client import JobFigures
from stages.errors import UserMistake
from stages.ledger import STAGE_KINDS, WORKER_KINDS
from tests.service.conftest import JobMaker
from tests.service.running import Service, collect_without_gaps, steps, until, wait_for


def test_a_running_jobs_figures_tell_where_its_workers_time_goes(service: Service, small: JobMaker) -> None:
    with service.client as client:
        job = until(client.submit(small(100_000, pipeline__stages=2, resources__memory_per_worker="1GiB")), "RUNNING")
        try:
            found: list[JobFigures] = []

            def there() -> bool:
                figures = job.stats()
                found[:] = [] if figures is None else [figures]
                return bool(found and found[0].workers and found[0].bubble_predicted is not None)

            wait_for(there, "no figures came")
            (first,) = found
            assert (first.id, first.attempt) == (job.id, 1)
            assert first.step > 0
            assert 0 < len(first.losses) <= 120
            assert [(worker.worker, worker.stages) for worker in first.workers] == [(0, (0,)), (1, (1,))]
            for worker in first.workers:
                assert set(worker.microseconds) == {*STAGE_KINDS, *WORKER_KINDS}
                assert worker.peak_rss_bytes is not None
                assert 2**20 < worker.peak_rss_bytes < 2**30 == worker.limit_bytes
                assert worker.pid > 0
                assert worker.host
            wait_for(lambda: (job.stats() or first).step > first.step, "no further step came")
            later: dict[str, JobFigures] = {}

            def more_time() -> bool:  # it comes after a step's other figures, and not for every step
                later.update(client.stats(job.id, "nosuchid"))
                spent = [sum(worker.microseconds.values()) for worker in later[job.id].workers]
                return all(
                    us > sum(before.microseconds.values()) for us, before in zip(spent, first.workers, strict=True)
                )

            wait_for(more_time, "the workers' time stands still")
            assert list(later) == [job.id]
            for before, after in zip(first.workers, later[job.id].workers, strict=True):
                assert all(after.microseconds[kind] >= us for kind, us in before.microseconds.items())

            shown = service.run("top", "--once").stdout
            assert f"{job.id} small" in shown
            assert "samples/s" in shown
            assert "worker  stages  bubble" in shown
            assert "     1  1 " in shown

            numbers = steps(list(job.rows()))  # ends, though the job goes on
            assert numbers == list(range(1, len(numbers) + 1))
            assert len(numbers) >= first.step
            assert collect_without_gaps(job.events())[:2] == ["submitted", "admitted"]
            assert job.refresh().state == "RUNNING"
        finally:
            job.stop(now=True).wait()
        assert job.stats() is not None  # kept for some minutes


def test_jobs_without_figures_are_left_out_and_too_many_are_refused(service: Service) -> None:
    with service.client as client:
        assert client.stats("nosuchid") == {}
        assert client.stats() == {}
        with pytest.raises(UserMistake, match="ids: got 101 of them, must be at most 100"):
            client.stats(*["x"] * 101)


def test_a_stream_of_what_is_there_ends_for_a_job_that_waits(service: Service, small: JobMaker) -> None:
    with service.client as client:
        blocker = until(client.submit(small(100_000, pipeline__stages=2)), "RUNNING")
        waiting = client.submit(small(1))
        try:
            assert list(waiting.rows()) == []
            assert collect_without_gaps(waiting.events()) == ["submitted"]
        finally:
            waiting.stop(now=True)
            blocker.stop(now=True).wait()
