"""The pages. Each registers itself for a Site."""

from __future__ import annotations

from cluster.dashboard.pages import cluster_page, job_page, jobs_page, lab_page, schedule_page, submit_page
from cluster.dashboard.site import Site


def register(site: Site) -> None:
    """Register all pages."""
    jobs_page.register(site)
    job_page.register(site)
    submit_page.register(site)
    cluster_page.register(site)
    schedule_page.register()
    lab_page.register()
