"""/cluster: nodes, CPUs, memory, the workers of jobs, and what waits for what."""

from __future__ import annotations

from nicegui import ui

from cluster.dashboard.frame import every_tick, frame, heading
from cluster.dashboard.models import Cluster, Job
from cluster.dashboard.parts import SHORT, facts, table, text
from cluster.dashboard.routes import cluster_model
from cluster.dashboard.site import Site
from cluster.dashboard.texts import counted, size


def register(site: Site) -> None:
    """The page."""

    @ui.page("/cluster")
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
                "Ray", "at", "CPUs in use", "memory in use", "jobs that run", "jobs that wait", "pipetrain"
            )
        with ui.element("section").classes("panel"):
            heading("Nodes")
            self._nodes = table("host", "address", "CPUs in use", "memory in use")
        with ui.element("section").classes("panel"):
            heading("Running")
            self._active = table("job", "state and reason", "workers", "CPUs", "memory", "where its workers are")
        with ui.element("section").classes("panel"):
            heading("Waiting, in order")
            self._waiting = table("job", "what it waits for", "needs", "priority")
            self._more = ui.label().classes("muted small")
        self._shown: object = None

    async def look(self) -> None:
        """Show what is new."""
        found = await cluster_model(self._site)
        places = {job.id: self._places(job.id) for job in found.active}
        if (found, places) == self._shown:
            return
        self._shown = found, places
        self._facts(_figures(found))
        _fill(
            self._nodes,
            [
                (n.host, n.address, f"{n.cpus_used:g} of {n.cpus:g}", f"{size(n.memory_used)} of {size(n.memory)}")
                for n in found.nodes
            ],
            "There are no nodes while Ray is not up.",
        )
        _fill(
            self._active,
            [
                (job, f"{job.state}: {job.reason}" if job.reason else job.state, *_takes(job), places[job.id])
                for job in found.active
            ],
            "Nothing runs.",
        )
        _fill(
            self._waiting,
            [(job, job.reason, ", ".join(filter(None, _needs(job))), str(job.priority)) for job in found.waiting],
            "Nothing waits.",
        )
        more = found.counts.get("QUEUED", 0) - len(found.waiting)
        self._more.set_text(f"and {more:,} more; the queue takes {found.max_queued:,}" if more > 0 else "")

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
        f"{used:g} of {cpus:g}",
        f"{size(taken)} of {size(memory)}",
        f"{len(found.active):,}",
        f"{found.counts.get('QUEUED', 0):,}",
        found.version,
    ]


def _takes(job: Job) -> tuple[str, str, str]:
    return str(job.workers), str(job.cpus), size(job.memory) if job.memory else "its CPUs' share"


def _needs(job: Job) -> tuple[str, ...]:
    return counted(job.workers, "worker"), counted(job.cpus, "CPU"), size(job.memory) if job.memory else ""


def _fill(body: ui.element, rows: list[tuple[Job | str, ...]], otherwise: str) -> None:
    """Fill a table's body anew; a job is a link to its page."""
    body.clear()
    with body:
        for row in rows:
            with ui.element("tr"):
                for cell in row:
                    if isinstance(cell, Job):
                        with ui.element("td"):
                            ui.link(cell.name, f"/jobs/{cell.id}")
                            ui.label(cell.id).classes("muted small")
                    else:
                        text("td", cell).classes("short" if len(cell) <= SHORT else "")
        if not rows:
            with ui.element("tr"):
                text("td", otherwise).classes("muted").props("colspan=9")
