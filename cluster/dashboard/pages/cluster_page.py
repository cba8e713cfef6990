"""/cluster: nodes, CPUs, memory, the workers of jobs, and what each waiting job waits for."""

from __future__ import annotations

from collections.abc import Sequence

from nicegui import ui

from cluster.dashboard.frame import MADE_WITHIN_S, every_tick, frame, heading
from cluster.dashboard.job_progress import left_text
from cluster.dashboard.models import Cluster, Job
from cluster.dashboard.parts import Rows, cell, facts, set_cell, table, text
from cluster.dashboard.routes import cluster_model
from cluster.dashboard.site import Site
from coordinator.texts import counted, size

_Key = tuple[int | str, str, int]
"""The key of a row: the job's id, or the row's number if it has no job; the job's name; the number of its texts."""
_NOTHING: _Key = (-1, "", 0)


def register(site: Site) -> None:
    """Register the page."""

    @ui.page("/cluster", response_timeout=MADE_WITHIN_S)
    async def cluster_page() -> None:
        with frame("Cluster", "/cluster", str(site.home.folder)):
            page = _ClusterPage(site)
            await page.look()
            every_tick(page.look, 1.0)


class _ClusterPage:
    """The page of one reader."""

    def __init__(self, site: Site) -> None:
        self._site = site
        heading("Cluster", 1)
        with ui.element("section").classes("panel"):
            self._facts = facts(
                "Ray", "Ray's address", "CPUs reserved", "memory reserved", "running jobs", "waiting jobs", "pipetrain"
            )
        with ui.element("section").classes("panel"):
            heading("Nodes")
            self._nodes = _Table(
                "There are no nodes while Ray is not up.", "host", "address", "CPUs reserved", "memory reserved"
            )
        with ui.element("section").classes("panel"):
            heading("Running")
            self._active = _Table(
                "No job runs.", "job", "state and reason", "done", "workers", "CPUs", "memory", "host of each worker"
            )
        with ui.element("section").classes("panel"):
            heading("Waiting, in order")
            self._waiting = _Table("No job waits.", "job", "waits for", "needs", "priority")
            self._more = ui.label().classes("muted small")

    async def look(self) -> None:
        """Show the present state."""
        found = await cluster_model(self._site)
        self._facts(_figures(found))
        self._nodes.show(
            [
                (
                    None,
                    (n.host, n.address, *_reserved(n.cpus_used, n.cpus, n.memory_used, n.memory)),
                )
                for n in found.nodes
            ]
        )
        self._active.show([(job, (*self._goes(job), *_takes(job), self._places(job.id))) for job in found.active])
        self._waiting.show(
            [(job, (job.reason, ", ".join(filter(None, _needs(job))), str(job.priority))) for job in found.waiting]
        )
        more = found.counts.get("QUEUED", 0) - len(found.waiting)
        self._more.set_text(f"and {more:,} more; the queue holds at most {found.max_queued:,}" if more > 0 else "")

    def _goes(self, job: Job) -> tuple[str, str]:
        """Return the state with its reason, and the progress: `14%, 5 min left`."""
        state = f"{job.state}: {job.reason}" if job.reason else job.state
        left = left_text(job.state, job.step, job.steps_total, self._site.jobs.board.jobs.get(job.id))
        done = f"{100 * job.step // job.steps_total}%" if job.steps_total else ""
        return state, ", ".join(filter(None, (done, left)))

    def _places(self, job: str) -> str:
        stats = self._site.jobs.board.jobs.get(job)
        workers = stats.timeline["workers"] if stats is not None and stats.timeline is not None else []
        return ", ".join(f"{w['worker']} on {w['host']}, process {w['pid']}" for w in workers[:16])


def _figures(found: Cluster) -> list[str]:
    cpus, used = sum(n.cpus for n in found.nodes), sum(n.cpus_used for n in found.nodes)
    memory, taken = sum(n.memory for n in found.nodes), sum(n.memory_used for n in found.nodes)
    return [
        found.ray,
        found.ray_address,
        *_reserved(used, cpus, taken, memory),
        f"{len(found.active):,}",
        f"{found.counts.get('QUEUED', 0):,}",
        found.version,
    ]


def _reserved(cpus_used: float, cpus: float, memory_used: float, memory: float) -> tuple[str, str]:
    """Return the reserved CPUs and memory, such as `3 of 4, 75%`."""
    shares = [
        f", {round(100 * used / there)}%" if there else "" for used, there in ((cpus_used, cpus), (memory_used, memory))
    ]
    return f"{cpus_used:g} of {cpus:g}{shares[0]}", f"{size(memory_used)} of {size(memory)}{shares[1]}"


def _takes(job: Job) -> tuple[str, str, str]:
    return str(job.workers), str(job.cpus), size(job.memory) if job.memory else "its CPUs' share"


def _needs(job: Job) -> tuple[str, ...]:
    return counted(job.workers, "worker"), counted(job.cpus, "CPU"), size(job.memory) if job.memory else ""


class _Table:
    """A table whose rows may begin with a link to a job."""

    def __init__(self, otherwise: str, *columns: str) -> None:
        self._otherwise = otherwise
        self._body = table(*columns)
        self._rows = Rows(self._body, self._row)

    def show(self, rows: Sequence[tuple[Job | None, Sequence[str]]]) -> None:
        """Show these rows; `otherwise` if there are none."""
        keys: list[_Key] = [
            (i if job is None else job.id, "" if job is None else job.name, len(texts))
            for i, (job, texts) in enumerate(rows)
        ]
        for cells, (_, texts) in zip(self._rows.show(keys or [_NOTHING]), rows or [(None, ())], strict=True):
            for place, content in zip(cells, texts, strict=True):
                if place.text != content:
                    set_cell(place, content)

    def _row(self, key: _Key) -> tuple[ui.element, list[ui.label]]:
        job, name, n_texts = key
        with ui.element("tr") as row:
            if key == _NOTHING:
                text("td", self._otherwise).classes("muted").props("colspan=9")
            elif name:
                with ui.element("td"):
                    ui.link(name, f"/jobs/{job}")
                    ui.label(str(job)).classes("muted small")
            first = 1 if name else 0
            return row, [cell(self._body, first + i) for i in range(n_texts)]
