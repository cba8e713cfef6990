"""The documents' tables follow from the code. ./scripts/generate --check tests the present ones."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def _tables(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "tables"), "--root", str(root), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_stale_table_is_found_and_made_anew(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("images"))
    assert _tables(tmp_path, "--check").returncode == 0
    page = tmp_path / "docs" / "metrics.md"
    right = page.read_text()
    page.write_text(right.replace("Learning rate of the last step.", "Something else."))
    stale = _tables(tmp_path, "--check")
    assert stale.returncode == 1
    assert "metrics.md: a table does not match the code" in stale.stderr
    assert _tables(tmp_path).returncode == 0
    assert page.read_text() == right


def test_a_table_that_no_page_has_is_told(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("images"))
    (tmp_path / "docs" / "run-directory.md").unlink()
    missing = _tables(tmp_path, "--check")
    assert (missing.returncode, missing.stderr) == (1, "no page has the table run-files\n")
