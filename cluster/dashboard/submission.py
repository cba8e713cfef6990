"""A job from a page or a script: YAML or JSON text in, a submitted job or its problems out, each with its line."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from cluster.dashboard.yaml_lines import Problem, place_problems
from cluster.service.api import Api
from cluster.service.records import JobRecord
from coordinator.job import MAX_JOB_FILE_BYTES, JobSpec, parse_job
from coordinator.job_yaml import read_yaml
from coordinator.source_names import EXTENSIONS, extension, is_url
from stages.errors import InvalidJob, UserMistake


class NotSubmitted(UserMistake):
    """The job is wrong. `placed` has every problem with its line."""

    def __init__(self, placed: Sequence[Problem]) -> None:
        self.placed = tuple(placed)
        super().__init__("\n".join(map(str, placed)))


async def submit_text(api: Api, text: str, *, name: str = "", priority: int = 0, submission_id: str = "") -> JobRecord:
    """Submit a job file's text, as `pipetrain submit --no-upload` does. Raises NotSubmitted, and as Api.take_in."""
    spec = await asyncio.to_thread(read_job_text, text, name)
    stored, _ = await api.take_in(spec, priority=priority, submission_id=submission_id)
    return stored


def read_job_text(text: str, name: str = "") -> JobSpec:
    """The job that the text describes; `name` replaces its own. Raises NotSubmitted with all problems.

    Paths are those of the service's machine, and there is no folder that they could be seen from.
    """
    if len(text) > MAX_JOB_FILE_BYTES:
        raise NotSubmitted([Problem(None, f"is longer than {MAX_JOB_FILE_BYTES:,} characters, so it is no job file")])
    document, problems = read_yaml(text)
    if document is None:
        raise NotSubmitted(place_problems(text, problems or ["is empty; a job needs model, data and training"]))
    if name and isinstance(document, dict):
        document["name"] = name
    spec: JobSpec | None = None
    try:
        spec = parse_job(document)
    except InvalidJob as error:
        problems += error.problems
    problems += _path_problems(document)
    if problems or spec is None:
        raise NotSubmitted(place_problems(text, problems))
    return spec


def _path_problems(document: object) -> list[str]:
    """Files that the job names and that are not there; what is no name of a file is told by others."""
    found = {}
    for section, key in (("data", "source"), ("data", "validation"), ("pipeline", "schedule")):
        entries = document.get(section) if isinstance(document, dict) else None
        path = entries.get(key) if isinstance(entries, dict) else None
        if isinstance(path, str) and not is_url(path) and extension(path) in EXTENSIONS:
            found[f"{section}.{key}"] = path
    return [f"{place}: got {path[:200]}, {wrong}" for place, path in found.items() if (wrong := _wrong(path))]


def _wrong(path: str) -> str:
    if "\0" in path or not Path(path).is_absolute():
        return "must be an absolute path on the service's machine; `pipetrain submit` uploads files from where you are"
    return "" if Path(path).is_file() else "no such file on the service's machine; `pipetrain submit` uploads it"
