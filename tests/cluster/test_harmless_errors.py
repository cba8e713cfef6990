"""Control characters in texts of other people, such as column names and paths, do not reach the terminal."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cluster.cli import show_error
from cluster.cli.texts import show_failure
from stages.errors import InvalidData, JobFailed

HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31m.csv"
SHOWN = r"\x1b]0;title\x07\x1b[2J\x9b31m.csv"


def test_errors_do_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show_error(InvalidData(f"{HOSTILE}: no such file"))
    show_error(JobFailed(f"{HOSTILE}\n\tand more"))
    assert capsys.readouterr().err == f"error: {SHOWN}: no such file\nfailed: {SHOWN}\n\tand more\n"


def test_the_cause_of_a_failure_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    job: Any = SimpleNamespace(exit_code=1, traceback=f'File "x"\n    open({HOSTILE})', reason="")
    show_failure(job, HOSTILE)
    assert capsys.readouterr().err == f'File "x"\n    open({SHOWN})\nfailed: {SHOWN}\n'
