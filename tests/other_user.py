"""Another user of this machine, without rights: what it can do with a folder of ours."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

import pytest


def _nobody() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        return None


needs_nobody = pytest.mark.skipif(
    os.getuid() != 0 or _nobody() is None, reason="only root can act as another user, and a user `nobody` must exist"
)


def as_nobody(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a shell script as the user `nobody`, in no other group."""
    found = _nobody()
    assert found is not None
    command = ["/bin/sh", "-c", script, "sh", *map(str, arguments)]
    return subprocess.run(
        command,
        user=found.pw_uid,
        group=found.pw_gid,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def become_nobody() -> None:
    """Let this process, a child that ends soon, be the user `nobody` from now on, in no other group."""
    found = _nobody()
    assert found is not None
    os.setgroups([])
    os.setgid(found.pw_gid)
    os.setuid(found.pw_uid)


_TOUCH = """
for path in "$@"; do
    ls "$path" 2>/dev/null | sed "s|^|lists $path: |"
    [ -f "$path" ] && head -c 1 "$path" >/dev/null 2>&1 && echo "reads $path"
    [ -w "$path" ] && echo "writes $path"
    ln -s /nowhere "$path/planted" 2>/dev/null && echo "plants in $path"
    mv "$path" "$path.moved" 2>/dev/null && echo "replaces $path"
done
true
"""


def what_nobody_can_do(folder: Path) -> list[str]:
    """Return all that `nobody` could list, read, write or replace in the folder or below, by known paths."""
    paths = [folder, *(path for path in folder.rglob("*") if not path.is_symlink())]
    assert len(paths) > 1, f"{folder} is empty, which proves nothing"
    return as_nobody(_TOUCH, *paths).stdout.splitlines()
