"""Gets what the service must know about a job's files from its readers (see `outside`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cluster.data.rules import SourceRules, local_files
from cluster.service.outside import MOST_BYTES, Outside, Unreadable
from coordinator.job.spec import JobSpec, parse_job


async def plan_job(
    outside: Outside, spec: JobSpec, places: Mapping[str, str], rules: SourceRules, room: int
) -> tuple[str, list[str]]:
    """Return the plan as JSON, and a line for each worker with too little memory. Raises Unreadable, Refused.

    The cluster has room for `room` workers. `places` maps the name of each uploaded file in the job to its path. If the
    caller cancels its call, the reading ends.
    """
    limits = replace(rules.with_files(places.values()), most_bytes=MOST_BYTES)
    names = ", ".join(dict.fromkeys([spec.data.source, *local_files(spec)]))
    try:
        job = {"document": spec.document(), "places": dict(places), "rules": limits.as_dict(), "room": room}
        answer = await outside.ask("plan", names, **job)
    except Unreadable as error:
        raise _renamed(error, places) from None
    return answer["plan"], answer["refusals"]


async def choose_settings(
    outside: Outside, spec: JobSpec, places: Mapping[str, str], rules: SourceRules, room: int
) -> tuple[JobSpec, str]:
    """Return the job with settings instead of `pipeline: auto`, and a line about them; any other job as it is, and "".
    See `plan_job`."""
    if not spec.pipeline.is_auto:
        return spec, ""
    limits = replace(rules.with_files(places.values()), most_bytes=MOST_BYTES)
    names = ", ".join(dict.fromkeys([spec.data.source, *local_files(spec)]))
    job = {"document": spec.document(), "places": dict(places), "rules": limits.as_dict(), "room": room}
    try:
        answer = await outside.ask("choose", names, **job)
    except Unreadable as error:
        raise _renamed(error, places) from None
    return parse_job(answer["document"]), " ".join(answer["lines"])


async def schedule_workers(outside: Outside, name: str, path: str, rules: SourceRules) -> int:
    """Return the number of workers in the schedule file `name`, which is at `path`. Raises Unreadable, Refused."""
    try:
        answer = await outside.ask("workers", name, path=path, rules=rules.as_dict())
    except Unreadable as error:
        raise _renamed(error, {name: path}) from None
    return int(answer["workers"])


async def wrong_paths(outside: Outside, paths: Sequence[str], rules: SourceRules, *, exists: bool) -> dict[str, str]:
    """Return the problem of each wrong local path: jobs may not read it or, with `exists`, it is not a file."""
    if not paths or (rules.roots is None and not exists):
        return {}
    answer = await outside.ask("look", paths[0], paths=list(paths), rules=rules.as_dict(), exists=exists)
    return dict(answer["wrong"])


def _renamed(error: Unreadable, places: Mapping[str, str]) -> Unreadable:
    """Return the error with the job's own names of uploaded files. Some lines have only the last part of a path."""
    text = "\n".join(error.problems)
    for name, here in places.items():
        if here != name:
            text = text.replace(here, name).replace(Path(here).name, Path(name).name)
    return Unreadable(text)
