"""The whole service on one screen, for `pipetrain cluster` and `pipetrain top`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from cluster.cli.job_tables import jobs_table, nodes_table
from cluster.cli.texts import one_line, since
from cluster.client import ClusterState, Job
from coordinator.queue.job_states import STATE_NAMES


def overview(address: str, state: ClusterState, ended: Sequence[Job] = (), *, width: int) -> Group:
    """Return a line about the service, its nodes, the jobs that run or wait, and the jobs `ended`."""
    counts = [f"{state.jobs[name]} {name.lower()}" for name in STATE_NAMES if state.jobs.get(name)]
    waiting = state.jobs.get("QUEUED", 0)
    parts: list[RenderableType] = [
        Text(
            f"pipetrain {state.version} at {address}, up for {since(state.started_at)} · "
            f"Ray {one_line(state.ray)} at {state.ray_address or '?'} · {state.home}"
        ),
        *(Text(f"problem: {one_line(problem)}", style="bold red") for problem in state.problems),
        Text(f"jobs: {', '.join(counts) or 'none'}; the queue holds {waiting} of {state.max_queued}"),
        Text(""),
        nodes_table(state.nodes) if state.nodes else Text("no nodes"),
        Text(""),
        _jobs([*state.active, *state.waiting, *ended], width),
    ]
    if waiting > len(state.waiting):
        parts.append(Text(f"{waiting - len(state.waiting):,} more jobs wait"))
    return Group(*parts)


def _jobs(jobs: Sequence[Job], width: int) -> RenderableType:
    return jobs_table(jobs, width=width) if jobs else Text("no job runs or waits")
