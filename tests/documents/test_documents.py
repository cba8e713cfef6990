"""Each command of README, the tutorial, and the pages of the job file and of schedules is performed, and prints the
output shown below it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coordinator.job.spec import load_job
from tests.documents.shown import Code, Command, agrees, shown
from tests.documents.visitor import ROOT, Visitor

pytestmark = pytest.mark.timeout(1200)
TORCH = "import torch"


@pytest.mark.parametrize(
    "name",
    ["README.md", "docs/tutorial.md", "docs/job-file.md", "docs/schedules.md"],
)
def test_commands_print_what_is_shown_and_leave_nothing_in_the_clone(name: str, tmp_path: Path) -> None:
    steps = [step for step in shown((ROOT / name).read_text()) if TORCH not in step.text]
    assert steps, f"{name} shows no command"
    visitor = Visitor(tmp_path)
    try:
        for step in steps:
            visitor.does(step, name)
    finally:
        visitor.leaves()
    assert visitor.left_behind() == []


def test_torch_code_of_the_tutorial_runs(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    steps = list(shown((ROOT / "docs/tutorial.md").read_text()))
    visitor = Visitor(tmp_path)
    for word in ("data examples/penguins.csv", "train runs/penguins.yaml", "predict runs/penguins"):
        (command,) = [s for s in steps if isinstance(s, Command) and s.text.startswith(f"pipetrain {word}")]
        local = command.text.replace("pipetrain train", "pipetrain train --local")
        visitor.does(Command(command.line, local, "…"), "docs/tutorial.md")
    numpys, torchs = [s for s in steps if isinstance(s, Code)]
    assert TORCH in torchs.text
    visitor.does(Code(torchs.line, numpys.text + torchs.text), "docs/tutorial.md")


def test_the_job_file_of_the_readme_is_the_example(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "digits.yaml").write_text(block)
    assert load_job(tmp_path / "digits.yaml").document() == load_job(ROOT / "examples" / "digits.yaml").document()


def test_the_first_screen_stays_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 200


SHOWN = "a: 3 steps\n…\n│ b │ 1.5 MiB ├\nruns/c"


@pytest.mark.parametrize(
    ("printed", "is_shown"),
    [
        ("a: 12 steps\n│  b  │ 2.25 MiB ├\nruns/c\n", True),
        ("a: 12 steps\nmore\nand more\n│ b │ 2 MiB ├\nruns/c\n", True),
        ("a: 12 steps\n│ b │ 2 MiB ├\nruns/d\n", False),
        ("a: 12 epochs\n│ b │ 2 MiB ├\nruns/c\n", False),
        ("a: 12 steps\n│ b │ 2 MiB ├\nruns/c\nmore\n", False),
        ("│ b │ 2 MiB ├\nruns/c\n", False),
        ("", False),
    ],
)
def test_only_figures_may_differ(printed: str, is_shown: bool) -> None:
    assert agrees(SHOWN, printed) is is_shown


def test_how_slow_the_machine_is_makes_no_difference() -> None:
    ended = "epoch   1 · step 23/690 · loss 0.4 · bubble 80% (predicted 32%) · validation loss 0.5"
    between = "epoch   1 · step 11/690 · loss 1.2 · bubble 66%"
    assert agrees(ended, f"{between}\n{ended.replace(' (predicted 32%)', '')}")


def test_commands_code_and_their_lines_are_found() -> None:
    text = "x\n```text\n$ a b\n1\n2\n$ c\n```\n\n```python\nd()\n```\n```yaml\n$ e\n```\n"
    assert list(shown(text))[:3] == [Command(3, "a b", "1\n2"), Command(6, "c", ""), Code(10, "d()\n")]
