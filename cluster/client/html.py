"""Jobs as notebooks show them."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.client.snapshot import JobSnapshot


def job_html(job: JobSnapshot) -> str:
    """A small table of a job's facts; whatever a job or its files are called is text in it, never markup."""
    of = "" if job.steps_total is None else f" of {job.steps_total}"
    facts = [
        ("job", f"{job.id} · {job.name}"),
        ("state", f"{job.state}: {job.reason}" if job.reason else job.state),
        ("step", f"{job.step}{of}"),
        ("loss", "" if job.loss is None else f"{job.loss:.4g}"),
        ("validation loss", "" if job.validation_loss is None else f"{job.validation_loss:.4g}"),
        ("validation accuracy", "" if job.validation_accuracy is None else f"{job.validation_accuracy:.2%}"),
        ("submitted", f"{job.submitted_at:%Y-%m-%d %H:%M:%S} UTC"),
    ]
    rows = "".join(
        f'<tr><th style="text-align:left">{name}</th><td style="text-align:left">{escape(text)}</td></tr>'
        for name, text in facts
        if text
    )
    return f"<table>{rows}</table>"
