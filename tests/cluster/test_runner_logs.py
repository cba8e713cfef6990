"""The log files have the output of workers on other hosts in the order in which they printed it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster.run.job_runner import Assignment
from cluster.service.ray_agent import runner_class


def test_parts_of_a_log_that_follow_each_other_closely_keep_their_order(ray: Any, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    assignment = Assignment(job="j", attempt=1, folder=str(tmp_path), document={}, files={}, memory_per_cpu=1)
    runner = runner_class(ray).options(num_cpus=0).remote(assignment)
    try:
        lines = [f"line {n}\n".encode() for n in range(3000)]
        ray.get([runner.take_log.remote(1, line) for line in lines], timeout=120)
    finally:
        ray.kill(runner, no_restart=True)
    assert (tmp_path / "logs" / "worker-1.log").read_bytes() == b"".join(lines)
