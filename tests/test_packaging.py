"""What an installation gives its user: our own packages, every file, a command that answers, docs that are true."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.cli import cli

ROOT = Path(__file__).parent.parent
PACKAGES = ("stages", "coordinator", "cluster", "pipetrain")
MOST_LINES = 400
MODULES = [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py")) if "_pb2" not in path.name]
PYPROJECT = ROOT / "pyproject.toml"
# Texts that show commands to a user: every command in them must exist.
TEXTS = [
    path
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md", "examples/**/*.md", "examples/**/*.yaml", "scripts/*")
    for path in sorted(ROOT.glob(pattern))
    if path.is_file()
]
# At the start of a line (after a prompt, a comment sign with an indent, or the demo's `run`), or of `inline code`.
COMMAND = re.compile(r"(?:^(?:[ $]*|#  +|run )|`)pipetrain ([a-z][a-z-]*)", re.MULTILINE)
SCRIPT = re.compile(r"\./(scripts/[a-z]+)")
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")

_ASK_AN_OUTSIDER = """
import importlib, importlib.metadata as metadata, json, sys
names = sys.argv[1:]
distribution = metadata.distribution("pipetrain")
print(json.dumps({
    "origins": [importlib.import_module(name).__file__ for name in names],
    "providers": [sorted(set(metadata.packages_distributions().get(name, []))) for name in names],
    "site": str(distribution.locate_file("")),
    "direct_url": json.loads(distribution.read_text("direct_url.json") or "{}"),
}))
"""


def _named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _settings() -> dict[str, Any]:
    return tomllib.loads(PYPROJECT.read_text())


def _run(*command: str | Path, cwd: Path) -> str:
    """Return the output of a command that must succeed. It starts in a folder without source files to import by
    accident."""
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=quiet, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_packages_come_from_this_distribution(tmp_path: Path) -> None:
    """PyPI has an unrelated package `cluster`; the one that is installed last would replace the other silently."""
    found = json.loads(_run(sys.executable, "-I", "-c", _ASK_AN_OUTSIDER, *PACKAGES, cwd=tmp_path))
    editable = found["direct_url"].get("dir_info", {}).get("editable", False)
    home = Path(found["direct_url"]["url"].removeprefix("file://") if editable else found["site"])
    assert found["providers"] == [["pipetrain"]] * len(PACKAGES)
    assert [Path(origin).resolve() for origin in found["origins"]] == [
        (home / name / "__init__.py").resolve() for name in PACKAGES
    ]


def test_the_command_says_its_version(tmp_path: Path) -> None:
    version = _settings()["project"]["version"]
    printed = _run(Path(sys.executable).with_name("pipetrain"), "--version", cwd=tmp_path)
    assert re.fullmatch(rf"pipetrain\b.*\b{re.escape(version)}\n", printed)


def test_help_and_mistakes_do_not_wait_for_heavy_imports(tmp_path: Path) -> None:
    heavy = {"ray", "sklearn", "pyarrow", "scipy", "numpy"}
    script = "import sys, cluster.cli; print(*sys.modules)"
    assert not heavy & set(_run(sys.executable, "-c", script, cwd=tmp_path).split())


def test_every_module_and_file_is_shipped() -> None:
    """setuptools leaves out folders without __init__.py, and files that package-data does not name."""
    declared = _settings()["tool"]["setuptools"]["package-data"]
    shipped = {path for name, patterns in declared.items() for p in patterns for path in (ROOT / name).glob(p)}
    files = [f for name in PACKAGES for f in (ROOT / name).rglob("*") if f.is_file() and "__pycache__" not in f.parts]
    orphans = [_named(f) for f in files if f.suffix == ".py" and not f.with_name("__init__.py").exists()]
    forgotten = [_named(f) for f in files if f.suffix != ".py" and f not in shipped]
    assert orphans == []
    assert forgotten == []
    assert {ROOT / name / "py.typed" for name in PACKAGES} <= shipped


def test_every_dependency_has_its_reason() -> None:
    text = PYPROJECT.read_text()
    block = text.partition("\ndependencies = [\n")[2].partition("\n]")[0]
    lines = block.splitlines()
    assert len(lines) == len(_settings()["project"]["dependencies"]), "one a line"
    assert [line.strip() for line in lines if not re.search(r'",\s+# \S.{10,}', line)] == []


@pytest.mark.parametrize("path", MODULES, ids=_named)
def test_modules_stay_small(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, f"{_named(path)} has {lines} lines; give a part of it a file of its own"


def _mentions(pattern: re.Pattern[str], texts: list[Path]) -> Iterator[tuple[str, str]]:
    for path in texts:
        for found in pattern.findall(path.read_text(encoding="utf-8")):
            yield _named(path), found


def test_commands_shown_to_users_exist() -> None:
    shown = sorted(set(_mentions(COMMAND, TEXTS)))
    known = cli.list_commands(cli.make_context("pipetrain", [], resilient_parsing=True))
    assert "train" in {command for _, command in shown}, "no file was checked"
    assert [(place, command) for place, command in shown if command not in known] == []


def test_every_command_can_be_loaded() -> None:
    context = cli.make_context("pipetrain", [], resilient_parsing=True)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        assert command.help, f"pipetrain {name} --help says nothing"


def test_scripts_shown_to_users_exist_and_can_be_run() -> None:
    shown = set(_mentions(SCRIPT, [*TEXTS, ROOT / ".ci" / "run"]))
    assert "scripts/install" in {script for _, script in shown}, "no file was checked"
    assert [(place, script) for place, script in sorted(shown) if not os.access(ROOT / script, os.X_OK)] == []


def test_links_in_the_documents_lead_somewhere() -> None:
    documents = [path for path in TEXTS if path.suffix == ".md"]
    broken = [
        (_named(path), target)
        for path in documents
        for target in LINK.findall(path.read_text(encoding="utf-8"))
        if "://" not in target and not target.startswith("mailto:") and not (path.parent / target).exists()
    ]
    assert broken == []
