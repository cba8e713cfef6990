"""The public module: `pipetrain` has what a user needs, shows nothing else, and the reference describes it."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pipetrain
from pipetrain import Client, Job, PipetrainError, StepRow
from stages import errors

DOCS = Path(__file__).parent.parent / "docs"


def test_dir_shows_what_is_public_and_nothing_else() -> None:
    shown = dir(pipetrain)
    assert shown == sorted(pipetrain.__all__)
    assert {"Client", "Job", "StepRow", "EvalRow", "JobFailed"} <= set(shown)
    assert [name for name in shown if not hasattr(pipetrain, name)] == []


def test_every_error_that_a_user_can_meet_is_there() -> None:
    ours = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, PipetrainError)}
    assert ours <= set(dir(pipetrain))


def test_it_does_not_wait_for_what_only_training_needs(tmp_path: Path) -> None:
    script = "import pipetrain, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert not {"ray", "sklearn", "pyarrow", "scipy", "nicegui"} & set(done.stdout.split())


def test_the_reference_describes_all_public_names() -> None:
    described = set()
    for page in sorted((DOCS / "reference").glob("*.md")):
        for path in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            module, _, name = path.rpartition(".")
            found = getattr(importlib.import_module(module), name, None)
            if found is None or not isinstance(found, type):  # a whole module
                described |= {n for n in vars(importlib.import_module(path)) if not n.startswith("_")}
            else:
                described.add(name)
                assert getattr(pipetrain, name) is found, "what is described is what users import"
    assert set(dir(pipetrain)) - described == set()


def test_documents_import_from_the_front_door_alone() -> None:
    pages = [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))]
    elsewhere = [
        (page.name, line)
        for page in pages
        if "decisions" not in page.parts
        for line in re.findall(
            r"^ *(?:from|import) (?:cluster|coordinator|stages)\b.*", page.read_text(encoding="utf-8"), re.M
        )
    ]
    assert elsewhere == []


def test_the_names_are_the_classes_themselves() -> None:
    assert Client.__module__ == "cluster.client.client"
    assert (Job.__name__, StepRow.__name__) == ("Job", "StepRow")
