"""`python -m tests.cluster.raylets_run FOLDER [STAGES]`: a run on three Ray nodes of this host with four CPUs. It
loses the node of a worker while another node is free, loses one for good, and gets a new one.

Everything happens between two rows of the run, so that it always happens at the same steps.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.run.run_dir import RunDir
from cluster.run.training import Run, Where
from coordinator.job.spec import JobSpec, parse_job
from coordinator.train.rows import EvalRow, Row
from tests.jobs import digits_job

LOST_AT, LOST_AGAIN_AT, JOINS_AT = 25, 60, 90
_LOOK_S, _PATIENCE_S = 0.1, 90.0


def job(stages: int | str) -> JobSpec:
    """Digits with clipping: one step a submission, so that no step is ahead of the rows."""
    document = digits_job(stages=3).document()
    document["pipeline"] |= {"stages": stages, "partition": "auto"}
    document["training"] |= {"clip_norm": 0.5, "epochs": 40}
    document["checkpoint"] = {"every_steps": 20}
    document["resources"] = {"hang_timeout": 60.0}
    document["recovery"] = {"max_restarts": 1, "room_timeout": 1.0, "grow_after": 0.5}
    return parse_job(document)


class _Nodes:
    """The nodes of the cluster; the run's own process is on the first."""

    def __init__(self, n: int) -> None:
        from ray.cluster_utils import Cluster  # here: the tests import this module, and start a Ray of their own later

        self._options: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
        began = time.monotonic()
        health = {"health_check_period_ms": 1000, "health_check_failure_threshold": 6}
        head = {**self._options, "num_cpus": 2, "include_dashboard": False, "_system_config": health}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self._others = [self.cluster.add_node(wait=False, **self._options) for _ in range(n - 1)]
        self.cluster.wait_for_nodes()
        print(f"the nodes are there after {time.monotonic() - began:.0f} s", flush=True)

    def kill(self, workers: Any) -> None:
        """Kill Ray on the node of the last worker that is not on the first node, and wait until the cluster knows."""
        import ray

        others = {node.node_id: node for node in self._others}
        node = [others[place.node] for place in workers.places() if place.node in others][-1]
        os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)
        latest = time.monotonic() + _PATIENCE_S
        while any(one["Alive"] for one in ray.nodes() if one["NodeID"] == node.node_id):
            if time.monotonic() > latest:
                raise TimeoutError(f"the cluster still takes a killed node for alive after {_PATIENCE_S:.0f} s")
            time.sleep(_LOOK_S)

    def join(self) -> None:
        """Start one more node."""
        self._others.append(self.cluster.add_node(**self._options))


def _rows(run: Run, rows: Iterator[Row], nodes: _Nodes) -> None:
    for row in rows:
        if isinstance(row, EvalRow):
            continue
        workers: Any = run._trainer._workers  # type: ignore[union-attr]
        if row.step in (LOST_AT, LOST_AGAIN_AT):
            nodes.kill(workers)
        if row.step == JOINS_AT:
            nodes.join()
        if row.step > JOINS_AT and run.blueprint.n_workers < 3:
            time.sleep(_LOOK_S)  # the run looks at the cluster every few seconds


def main() -> None:
    """Run it, and leave a run directory in FOLDER."""
    folder, stages = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "auto"
    nodes = _Nodes(3)
    try:
        where = Where(address=nodes.cluster.address, most=3)
        run = Run.prepare(job(stages if stages == "auto" else int(stages)), where)
        run_dir = RunDir.create(folder, run.spec)
        run.warn = lambda text: print(text, flush=True)
        _rows(run, run.rows(run_dir), nodes)
        run_dir.close()
    finally:
        import ray

        ray.shutdown()  # after an error the process is still connected, and the cluster would refuse to end
        nodes.cluster.shutdown()


if __name__ == "__main__":
    main()
