"""A broken link fails the build of the site. ./scripts/check tests that the present documents have none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.timeout(300)
def test_a_broken_link_and_a_page_that_no_menu_has_end_the_build(tmp_path: Path) -> None:
    for name in ("docs", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    for name in ("cluster", "coordinator", "pipetrain", "stages"):  # the site's build reads their docstrings
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "scripts" / "install").write_text("#!/bin/sh\n")
    with (tmp_path / "docs" / "index.md").open("a") as index:
        index.write("\n[a](nowhere.md) [b](glossary.md#no-such-word)\n")
    (tmp_path / "docs" / "forgotten.md").write_text("# Forgotten\n")
    command = [str(tmp_path / "scripts" / "docs")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 1
    for told in ("'nowhere.md'", "'#no-such-word'", "forgotten.md"):
        assert told in done.stderr, done.stderr
