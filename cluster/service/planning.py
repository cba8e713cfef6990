"""`plan` for callers: in a process of its own, since it reads the job's data, which may be large or slow to come."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Mapping
from typing import Any

from coordinator.job import JobSpec
from stages.errors import JobFailed, UserMistake


class PlanRefused(UserMistake):
    """The job's data or schedule does not do."""


async def plan_job(spec: JobSpec, places: Mapping[str, str]) -> tuple[str, list[str]]:
    """The plan as JSON, and a line for each worker whose memory will not do. Raises PlanRefused with each problem.

    A caller who goes away ends the process.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cluster.service.planning"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        question = json.dumps({"document": spec.document(), "places": dict(places)})
        output, errors = await process.communicate(question.encode())
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    if process.returncode != 0:
        raise JobFailed(f"planning failed: {errors.decode(errors='replace').strip()[-500:]}")
    answer = json.loads(output)
    if answer["problems"]:
        raise PlanRefused("\n".join(answer["problems"]))
    return json.dumps(answer["plan"]), answer["refusals"]


def main() -> None:
    """Read the question from standard input, write the answer to standard output."""
    from cluster.sources import load_data
    from coordinator.blueprint import make_blueprint
    from coordinator.estimate import estimate
    from coordinator.job import parse_job

    question = json.load(sys.stdin)
    answer: dict[str, Any] = {"plan": None, "refusals": [], "problems": []}
    try:
        spec = parse_job(question["document"]).relocated(question["places"])
        data = load_data(spec)
        found = estimate(
            make_blueprint(spec, len(data.train)), data_bytes=data.nbytes, validation_rows=len(data.validation)
        )
        answer.update(plan=found.as_dict(), refusals=list(found.refusals))
    except UserMistake as error:
        names = {here: name for name, here in question["places"].items()}
        answer["problems"] = [_renamed(line, names) for line in error.problems]
    json.dump(answer, sys.stdout)


def _renamed(line: str, names: Mapping[str, str]) -> str:
    for here, name in names.items():
        line = line.replace(here, name)
    return line


if __name__ == "__main__":
    main()
