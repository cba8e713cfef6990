"""Submit a job from the text of a page or a script, in YAML or JSON. Problems are reported with their lines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.dashboard.site import Site
from cluster.dashboard.yaml_lines import Problem, place_problems
from cluster.service.api import Api
from cluster.service.records import JobRecord
from coordinator.job.limits import document_problem, encodable
from coordinator.job.source_names import files_named, local_path
from coordinator.job.spec import JobSpec, changed_job, parse_job
from coordinator.job.yaml_text import read_document
from stages.errors import InvalidJob, UserMistake


class NotSubmitted(UserMistake):
    """The error for a job with mistakes. `placed` has every problem with its line."""

    def __init__(self, placed: Sequence[Problem]) -> None:
        self.placed = tuple(placed)
        super().__init__("\n".join(map(str, placed)))


async def submit_text(
    api: Api,
    text: str,
    *,
    name: str = "",
    priority: int = 0,
    submission_id: str = "",
    preempt: bool = False,
    remote: bool = False,
) -> JobRecord:
    """Submit a job file's text, as `pipetrain submit --no-upload` does; `remote`: the text came from another host.

    Paths are those of the service's machine and must be absolute. Raises NotSubmitted with all problems of the text,
    and the errors of Api.take_in.
    """
    draft = await asyncio.to_thread(read_job_text, text, name)
    wrong = await api.wrong_paths([path for path in draft.paths.values() if _is_absolute(path)], exists=True)
    stored, _ = await api.take_in(
        await asyncio.to_thread(draft.spec, wrong),
        priority=priority,
        submission_id=submission_id,
        preempt=preempt,
        remote=remote,
    )
    return stored


async def resume_job(
    site: Site, job: str, changes: Sequence[str], *, priority: int = 0, preempt: bool = False, remote: bool = False
) -> JobRecord:
    """Submit a new job that goes on from the newest checkpoint of a job that has ended, as `pipetrain submit --resume`
    does. `changes` are such as `training.epochs=40`. Raises InvalidJob, Refused, and the errors of Api.take_in."""
    stored = await asyncio.to_thread(site.jobs.store.document, job)
    spec = await asyncio.to_thread(changed_job, json.loads(stored.document), changes)
    record, _ = await site.api.take_in(
        spec, files=stored.files, priority=priority, resume=job, preempt=preempt, remote=remote
    )
    return record


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A job that was read from a text. `problems` are those found so far; `paths` are the local files that the job
    names, by the entry that names them."""

    text: str
    job: JobSpec | None
    problems: Sequence[str]
    paths: Mapping[str, str]

    def spec(self, wrong: Mapping[str, str]) -> JobSpec:
        """Return the job. `wrong` has the problems of paths, by path. Raises NotSubmitted with all problems, if any."""
        problems = list(self.problems)
        for entry, path in self.paths.items():
            if not _is_absolute(path):
                problems.append(
                    f"{entry}: got {path[:200]}, must be an absolute path on the service's machine; `pipetrain submit` "
                    "uploads files from your machine"
                )
            elif path in wrong:
                problems.append(f"{entry}: got {path[:200]}, {wrong[path]}; `pipetrain submit` uploads it")
        if problems or self.job is None:
            raise NotSubmitted(place_problems(self.text, problems))
        return self.job


def read_job_text(text: str, name: str = "") -> Draft:
    """Read the job that the text describes, without looking at its files; `name` replaces its name. Raises
    NotSubmitted."""
    if too_long := document_problem(text):
        raise NotSubmitted([Problem(None, too_long)])
    document, problems = read_document(text)
    if document is None:
        raise NotSubmitted(place_problems(text, problems or ["is empty; a job needs model, data and training"]))
    if name and isinstance(document, dict):
        document["name"] = name
    spec: JobSpec | None = None
    try:
        spec = parse_job(document)
    except InvalidJob as error:
        problems += error.problems
    return Draft(text=text, job=spec, problems=problems, paths=_paths(document))


def _paths(document: object) -> dict[str, str]:
    """Return the local files that the job names, by their entries. parse_job reports values that are no file names."""
    found = {}
    for entry, name in files_named(document).items():
        path = local_path(name) if encodable(name) else None
        if path is not None:
            found[entry] = path
    return found


def _is_absolute(path: str) -> bool:
    return "\0" not in path and Path(path).is_absolute()
