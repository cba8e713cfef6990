"""`python -m cluster.service.reader`: reads the files of one job for the service, and ends.

It prints that it is ready, reads a request as a line of JSON from standard input, and writes its answer to standard
output. With `--ahead` it has time before the request comes, so it first imports all modules that a request may need.
See `outside`.
"""

from __future__ import annotations

import importlib
import json
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster.actors.process_limits import limit_memory
from cluster.data.rules import SourceRules
from stages.errors import UserMistake

READY, AHEAD = "ready", "--ahead"
_FOR_A_PLAN = (
    *("cluster.data.sources", "cluster.checkpoints.given_weights", "coordinator.job.spec"),
    *("coordinator.plan.choosing", "coordinator.plan.layout", "coordinator.plan.planned_schedule"),
)
_LATE = (*_FOR_A_PLAN, "coordinator.schedules.csv_format", "sklearn.datasets", "pyarrow.csv", "pyarrow.parquet")
"""Modules that reading imports only when it needs them."""
_GRACE_S = 5
_OPEN_FILES = 256


def main() -> None:
    """Answer one request, or end without one if standard input is closed first."""
    if AHEAD in sys.argv:
        for name in _LATE:
            importlib.import_module(name)
    print(READY, flush=True)
    line = sys.stdin.readline()
    if not line:
        return
    question = json.loads(line)
    signal.alarm(int(question["seconds"]) + _GRACE_S)  # ends this process even if the service is gone
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name in _FOR_A_PLAN if question["what"] in ("plan", "choose") else ():
        importlib.import_module(name)  # before the limit, which is for the data
    limit_memory(question["memory"])
    answer: dict[str, Any] = {"problems": []}
    try:
        answer.update(_QUESTIONS[question["what"]](question))
    except UserMistake as error:
        answer["problems"] = list(error.problems)
    except MemoryError:
        answer["problems"] = [f"reading it takes more than {question['memory']:,} bytes of memory"]
    json.dump(answer, sys.stdout)


def _plan(question: Mapping[str, Any]) -> dict[str, Any]:
    from cluster.checkpoints.given_weights import require_weights
    from cluster.data.checks import Checking
    from cluster.data.sources import load_data
    from coordinator.job.spec import parse_job
    from coordinator.plan.choosing import chosen
    from coordinator.plan.estimate import estimate
    from coordinator.plan.layout import lay_out
    from coordinator.plan.planned_schedule import planned_schedule

    spec = parse_job(question["document"]).relocated(question["places"])
    rules = SourceRules.from_dict(question["rules"])
    rules.require_schedule(spec)
    data = load_data(spec, rules, Checking(whole=False))
    spec = data.spec
    require_weights(spec, replace(rules, most_bytes=None))  # no limit of size: it keeps only names and shapes
    spec, lines = chosen(spec, len(data.train), question["room"], **data.for_plan)
    blueprint = lay_out(spec, len(data.train), question["room"])
    found = estimate(blueprint, **data.for_plan)
    plan = {**found.as_dict(), **planned_schedule(blueprint), "data": [*data.said, *lines]}
    return {"plan": json.dumps(plan), "refusals": list(found.refusals)}


def _choose(question: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document of a job that says `pipeline: auto`, with the settings that are chosen for it, and the line
    about them. Reads the data only if the network, or the memory that a worker needs, follows from it."""
    from cluster.data.checks import Checking
    from cluster.data.sources import load_data
    from coordinator.job.spec import parse_job
    from coordinator.plan.choosing import chosen
    from coordinator.plan.settings import with_settings_of

    spec = parse_job(question["document"])
    if spec.is_resolved and spec.resources.memory_per_worker is None:
        found, lines = chosen(spec, spec.training.batch_size, question["room"])
    else:
        rules = SourceRules.from_dict(question["rules"])
        data = load_data(spec.relocated(question["places"]), rules, Checking(whole=False))
        found, lines = chosen(data.spec, len(data.train), question["room"], **data.for_plan)
    return {"document": with_settings_of(spec, found).document(), "lines": list(lines)}


def _workers(question: Mapping[str, Any]) -> dict[str, Any]:
    """Return the number of workers in a schedule file."""
    from coordinator.schedules.csv_format import load_csv

    SourceRules.from_dict(question["rules"]).require_place(question["path"])
    return {"workers": load_csv(Path(question["path"])).n_workers}


def _look(question: Mapping[str, Any]) -> dict[str, Any]:
    """Return the problem of each wrong path: it leads to a forbidden place, or is not a file. Opens no file."""
    from cluster.data.places import exists

    rules = SourceRules.from_dict(question["rules"])
    found: dict[str, str] = {}
    for path in question["paths"]:
        try:
            rules.require_place(path)
        except UserMistake as error:
            found[path] = str(error).removeprefix(f"{path}: ")
        else:
            if question["exists"] and not exists(path):
                found[path] = "no such file on the service's machine"
    return {"wrong": found}


_QUESTIONS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "plan": _plan,
    "choose": _choose,
    "workers": _workers,
    "look": _look,
}


if __name__ == "__main__":
    main()
