"""Facts about jobs as texts for people: times, steps, and how a job ended."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from coordinator.texts import span, text_measures

if TYPE_CHECKING:
    from cluster.client import Job, JobEvent


_TURNS = "\u202a-\u202e\u2066-\u2069"  # characters that change the direction of the text after them
_STEERING = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_TURNS}]")
_BREAKING = re.compile(f"[\x00-\x1f\x7f-\x9f{_TURNS}]+")


def since(time: datetime | None, now: datetime | None = None) -> str:
    """Return how long ago `time` was, in one unit: `42s`, `5m`, `3h`, `12d`; empty for None."""
    return "" if time is None else span(((now or datetime.now(UTC)) - time).total_seconds(), compact=True)


def clock(time: datetime | None) -> str:
    """Return a time such as `2026-03-01 12:30:00`, in this machine's time zone; empty for None."""
    return "" if time is None else f"{time.astimezone():%Y-%m-%d %H:%M:%S}"


def one_line(text: str) -> str:
    """Return the text on one line, with spaces for control characters: it can neither break a table nor move a
    terminal's cursor."""
    return _BREAKING.sub(" ", text).strip()


def harmless(text: str) -> str:
    """Return the text with control characters escaped, except line ends and tabs. Names, paths and logs of others in it
    then cannot move a terminal's cursor, change its title or colours, or turn the direction of the text."""
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def steps(job: Job) -> str:
    """Return the steps done of all steps, `57/690`; only `57` if their number is not known yet."""
    return f"{job.step}" if job.steps_total is None else f"{job.step}/{job.steps_total}"


def outcome(job: Job) -> str:
    """Return how a job ended: `finished at step 690 of 690, validation loss 0.0637, validation accuracy 98.61%`."""
    of = "" if job.steps_total is None else f" of {job.steps_total}"
    if job.state == "STOPPED":
        place = f"at step {job.step}"
        return one_line(job.reason).replace(f"{place},", f"{place}{of},") or "stopped"
    if job.state == "FAILED":
        return f"failed at step {job.step}: {one_line(job.reason)}"
    parts = [f"{'finished' if job.state == 'SUCCEEDED' else job.state.lower()} at step {job.step}{of}"]
    if job.validation_loss is None and job.loss is not None:
        parts.append(f"mean loss {job.loss:.4g}")
    if job.validation_loss is not None:
        parts.append(f"validation loss {job.validation_loss:.4g}")
    parts += text_measures(job.validation_perplexity, job.validation_bits_per_byte)
    if job.validation_accuracy is not None:
        parts.append(f"validation accuracy {job.validation_accuracy:.2%}")
    return ", ".join(parts)


def show_failure(job: Job, cause: str = "", *, label: str = "") -> None:
    """Print the first cause on standard error, as `pipetrain train` does. `cause` has all its lines."""
    lines = harmless(cause or job.reason or "the service has no cause").splitlines()
    if job.exit_code == 2:
        for line in lines:
            click.echo(f"{label}error: {line}", err=True)
        return
    if job.traceback:
        click.echo(harmless(job.traceback).rstrip(), err=True)
    click.echo(f"{label}failed: " + "\n".join(lines), err=True)


def cause_of(events: list[JobEvent] | tuple[JobEvent, ...]) -> str:
    """Return all lines of the first cause from the events; empty if they have none."""
    causes = [str(event.details["cause"]) for event in events if event.kind == "failed" and "cause" in event.details]
    return causes[-1] if causes else ""
