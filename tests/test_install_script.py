"""scripts/install: a user gets no development tools, and a developer adds them to the same environment.

A script that only records its arguments stands in for Python, so that nothing is downloaded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYTHON = """\
#!/usr/bin/env bash
# `-` asks whether it is new enough: silence says yes
[[ $1 == - ]] && exit 0
[[ $1 == --version ]] && echo "Python 3.99.0" && exit 0
[[ "$1 $2" == "-m venv" ]] && mkdir -p .venv/bin && cp "$0" .venv/bin/python && exit 0
[[ $1 == -c ]] && { [[ $2 == *version_info* ]] && echo True; exit 0; }
[[ "$1 $2" == "-m pip" ]] || exit 9
echo "${@:3}" >>pip.calls
echo "Collecting numpy>=2.0"
[[ -z ${FAIL-} ]] || { echo "ERROR: no space left"; exit 1; }
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with the files that the script reads."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "install", tmp_path / "scripts")
    (tmp_path / "pyproject.toml").write_text("# one\n")
    (tmp_path / "fake-python").write_text(PYTHON)
    (tmp_path / "fake-python").chmod(0o755)
    return tmp_path


def _install(clone: Path, *arguments: str, fail: bool = False) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHON": str(clone / "fake-python"), "FAIL": "1" if fail else ""}
    command = [str(clone / "scripts" / "install"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


def _installed(clone: Path) -> list[str]:
    """Return the arguments of each call of pip."""
    calls = clone / "pip.calls"
    return [line.split()[-1] for line in calls.read_text().splitlines()] if calls.exists() else []


def test_a_user_gets_no_development_tools_and_a_developer_adds_them_once(clone: Path) -> None:
    for arguments in (["--user"], ["--user"], [], [], ["--user"]):
        done = _install(clone, *arguments)
        assert done.returncode == 0, done.stderr
    assert _installed(clone) == [".", ".[dev]"]


def test_a_changed_project_keeps_the_tools_up_to_date_that_are_there(clone: Path) -> None:
    _install(clone)
    (clone / "pyproject.toml").write_text("# two\n")
    _install(clone, "--user")
    assert _installed(clone) == [".[dev]", ".[dev]"]


def test_it_says_how_large_it_becomes_and_how_far_it_is(clone: Path) -> None:
    done = _install(clone, "--user")
    assert " MB" in done.stdout.splitlines()[0]
    assert [line.split(" · ")[2] for line in done.stdout.splitlines()[1:]] == ["getting numpy"]


def test_a_failure_shows_what_pip_said_and_the_next_call_tries_again(clone: Path) -> None:
    failed = _install(clone, fail=True)
    assert failed.returncode == 1
    assert "no space left" in failed.stderr
    assert ".venv/install.log" in failed.stderr
    assert _install(clone).returncode == 0
    assert len(_installed(clone)) == 2


def test_the_demo_installs_what_a_user_needs() -> None:
    assert "./scripts/install --user\n" in (ROOT / "scripts" / "demo").read_text()
