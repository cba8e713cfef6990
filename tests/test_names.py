"""One word for one thing: names that mean two things, or nothing, stop the build."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Names of the protocol and of /api that our own classes share are always written with their module: pb.Job, models.Job.
QUALIFIED = {"cluster/dashboard/models.py"}
VAGUE = {"tell", "told", "say", "said"}


def _definitions() -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    for package in ("stages", "coordinator", "cluster", "pipetrain"):
        for path in sorted((ROOT / package).rglob("*.py")):
            place = str(path.relative_to(ROOT))
            if "_pb2" not in place and place not in QUALIFIED:
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                    if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                        yield place, node


def test_no_two_public_classes_have_one_name() -> None:
    places = defaultdict(list)
    for place, node in _definitions():
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            places[node.name].append(place)
    assert len(places) > 200, "no file was checked"
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_functions_say_what_they_do() -> None:
    """`notify`, `warn`, `log_line`, `record_failure`, `wake_watchers`: each is one thing."""
    functions = [(place, node.name) for place, node in _definitions() if not isinstance(node, ast.ClassDef)]
    assert [(place, name) for place, name in functions if name.strip("_") in VAGUE] == []


def test_counts_sizes_and_durations_have_one_formatter_each() -> None:
    from coordinator import texts

    own = {name for name, value in vars(texts).items() if callable(value) and value.__module__ == texts.__name__}
    assert {"counted", "size", "span", "share", "number"} <= own
    elsewhere = [
        (place, node.name)
        for place, node in _definitions()
        if not isinstance(node, ast.ClassDef) and node.name in own and place != "coordinator/texts.py"
    ]
    assert elsewhere == [("cluster/service/metrics_jobs.py", "number")], "that one is Prometheus' format"
