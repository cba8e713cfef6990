"""Processes that are asked: what they do wrong is one line, no wait is without end, and nothing stays behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cluster.run.asked_processes import AskedProcesses
from stages.errors import HostFailed

TWO_ANSWERS = "import sys; print(1); print(2, flush=True); sys.stdin.read()"
PATIENCE_S = 60.0


def asked(script: str) -> AskedProcesses:
    return AskedProcesses("asking", [[sys.executable, "-c", script]], {})


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ("print('[1,', end='', flush=True); raise SystemExit('out of luck')", "ended with code 1: out of luck"),
        ("print('[1,', flush=True); sys.stdin.read()", "wrote no answer"),
        ("import os; os.write(1, bytes([255, 10])); sys.stdin.read()", "wrote no answer"),
    ],
    ids=["dies within a line", "half an answer", "no text"],
)
def test_half_an_answer_is_one_line(script: str, line: str) -> None:
    with asked(f"import sys; {script}") as processes, pytest.raises(HostFailed) as failed:
        processes.answers(PATIENCE_S)
    assert str(failed.value) == f"asking: a process {line}"


@pytest.mark.parametrize(
    "script",
    ["print('[1,', end='', flush=True); sys.stdin.read()", "\nwhile True: print(end=' ', flush=True)"],
    ids=["hangs within a line", "writes a line without end"],
)
def test_a_wait_ends_within_a_line(script: str) -> None:
    """It waited for the rest of the line for ever."""
    waits = (
        "import sys\n"
        "from cluster.run.asked_processes import AskedProcesses\n"
        f"with AskedProcesses('asking', [[sys.executable, '-c', {f'import sys; {script}'!r}]], {{}}) as processes:\n"
        "    processes.answers(2)\n"
    )
    ran = subprocess.run([sys.executable, "-c", waits], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert ran.stderr.splitlines()[-1].endswith("HostFailed: asking: a process gave no answer within 2 s")


def test_answers_that_come_together_are_taken_one_by_one() -> None:
    with asked(TWO_ANSWERS) as processes:
        assert processes.answers(PATIENCE_S) == [1]
        assert processes.answers(PATIENCE_S) == [2]


def test_nothing_stays_behind_one_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from cluster.run.asked_processes import AskedProcesses\n"
        f"processes = AskedProcesses('asking', [[sys.executable, '-c', {TWO_ANSWERS!r}]], {{}})\n"
        f"processes.answers({PATIENCE_S})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    killed = subprocess.run([sys.executable, "-c", script], check=False, env=environment, timeout=PATIENCE_S)
    assert killed.returncode == -signal.SIGKILL
    assert not list(tmp_path.iterdir())


def test_no_place_for_temporary_files_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(HostFailed) as failed:
        asked(TWO_ANSWERS)
    told = str(failed.value)
    assert re.fullmatch(r"asking: no temporary file can be made: .+; name another folder in TMPDIR", told), told
