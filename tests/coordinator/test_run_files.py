"""The names and descriptions of a run directory's files stand in one place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator import run_files
from coordinator.run_files import RUN_FILES, of_attempt, run_file, worker_of_log

ROOT = Path(__file__).parent.parent.parent
NAMES = {value for name, value in vars(run_files).items() if name.isupper() and isinstance(value, str)}
WORDS = {"logs", "tensorboard", "checkpoints"}  # these words mean other things elsewhere
SPELLED_ON_PURPOSE = {Path("cluster/cli/trace.py")}  # the default of --output, a file anywhere


def _spelled(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in NAMES - WORDS:
            yield f"{path.relative_to(ROOT)}:{node.lineno}: {node.value}"


def test_no_other_module_spells_a_name() -> None:
    paths = [p for package in ("stages", "coordinator", "cluster") for p in sorted((ROOT / package).rglob("*.py"))]
    assert {"metrics.jsonl", "model.safetensors", ".reserve"} <= NAMES
    kept = {ROOT / path for path in SPELLED_ON_PURPOSE} | {Path(run_files.__file__)}
    assert [place for path in paths if path not in kept for place in _spelled(path)] == []


def test_every_name_has_a_row() -> None:
    assert [name for name in sorted(NAMES) if run_file(name) is None and run_file(f"{name}/x") is None] == [
        "checkpoints",
        "logs",
    ]
    assert run_file(f"{run_files.LOGS}/{run_files.log_file(None)}") is not None


@pytest.mark.parametrize(
    ("path", "row"),
    [
        ("metrics.jsonl", "metrics.jsonl"),
        (of_attempt(run_files.METRICS, 2), "metrics.attempt-*.jsonl"),
        (of_attempt(run_files.ACCOUNTS, 11), "accounts.attempt-*.jsonl"),
        (f"logs/{run_files.log_file(3)}", "logs/worker-*.log"),
        (run_files.attempt_mark(1), ".attempt-*"),
        (run_files.unfinished(run_files.TIMELINE), ".*.part"),
        ("notes.txt", None),
    ],
)
def test_a_file_is_found_in_the_table(path: str, row: str | None) -> None:
    found = run_file(path)
    assert (None if found is None else found.name) == row


def test_whose_log_it_is() -> None:
    assert [worker_of_log(name) for name in ("worker-0.log", "worker-12.log")] == [0, 12]
    assert [worker_of_log(name) for name in ("runner.log", "worker-x.log", "worker-1.log.old")] == [None, None, None]


def test_the_page_has_the_table() -> None:
    page = (ROOT / "docs" / "run-directory.md").read_text(encoding="utf-8")
    rows = [f"| `{row.name}` | {row.content} | {row.written_by} | {row.read_by} |" for row in RUN_FILES]
    shown = [line for line in page.splitlines() if line.startswith("| `")]
    assert shown == rows
