"""A visitor that runs a document's commands, in a copy of the project's examples and with a home of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.documents.shown import Code, Command, agrees
from tests.examples import takes_all
from tests.ports import free_ports

ROOT = Path(__file__).parents[2]
SHORTER = {"pipetrain train examples/too-big-for-one.yaml": "--set training.epochs=1"}
"""What is added to a command unless `--slow`: a large model shows after some steps that it can be trained."""
_LONGEST_S = 200
_ID = re.compile(r"^([a-z0-9]{8})(?=:|$)", re.MULTILINE)


class Visitor:
    """A visitor. It replaces the ids in a document by those that the service gives, and the default ports by free
    ones."""

    def __init__(self, folder: Path) -> None:
        self.clone, self._home = folder / "clone", folder / "me"
        self._home.mkdir()
        shutil.copytree(ROOT / "examples", self.clone / "examples", ignore=shutil.ignore_patterns("__pycache__"))
        (self.clone / "runs").mkdir()
        self._given = set(self._files())
        self._ids: dict[str, str] = {}
        grpc, http = free_ports(2)
        self._ports = {"7070": str(grpc), "7071": str(http)}

    def does(self, step: Command | Code, document: str) -> None:
        """Perform a step. Fails if its output differs from the one in the document."""
        if isinstance(step, Code):
            self._run([sys.executable, "-c", step.text], f"{document}:{step.line}", check=True)
            return
        text = step.text
        for documented, real in self._ids.items():
            text = text.replace(documented, real)
        if text.startswith("pipetrain up "):
            text += f" --grpc-port {self._ports['7070']} --http-port {self._ports['7071']}"
        if not takes_all():
            text += "".join(f" {option}" for start, option in SHORTER.items() if text.startswith(start))
        # no check of the exit code: a missing command, or one that fails in a pipe, prints something else
        actual = self._run(["bash", "-c", text], f"{document}:{step.line}")
        documented_id, real_id = _ID.search(step.output), _ID.search(actual)
        if text.startswith("pipetrain submit") and documented_id and real_id:
            self._ids[documented_id[1]] = real_id[1]
        for documented, real in self._ids.items():
            actual = actual.replace(real, documented)
        actual = actual.replace(str(self._home), "/home/me").replace(f" on {os.uname().nodename}", " on vm")
        assert agrees(step.output, actual), (
            f"{document}:{step.line} shows\n\n$ {step.text}\n{step.output}\n\nbut it printed\n\n{actual}"
        )

    def left_behind(self) -> list[str]:
        """Return new files outside of `runs`, which git ignores."""
        return sorted(name for name in set(self._files()) - self._given if not name.startswith("runs/"))

    def leaves(self) -> None:
        """Stop the service, if it is up."""
        self._run(["pipetrain", "down"], "down")

    def _files(self) -> list[str]:
        return [str(file.relative_to(self.clone)) for file in self.clone.rglob("*") if file.is_file()]

    def _run(self, command: list[str], place: str, *, check: bool = False) -> str:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PIPETRAIN_", "PYTHON"))}
        environment |= {
            "HOME": str(self._home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "COLUMNS": "140",
        }
        done = subprocess.run(
            command,
            cwd=self.clone,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_LONGEST_S,
            check=False,
        )
        assert not check or done.returncode == 0, f"{place}: {done.stdout}"
        return done.stdout
