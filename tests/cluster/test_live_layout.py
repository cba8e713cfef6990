"""The live view of `train` after the run was laid out anew: its workers are those of the present layout."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from rich.console import Console

from cluster.cli.progress import Header, LiveProgress
from cluster.run.run_dir import RunDir
from cluster.run.training import Run, Where
from coordinator.train.rows import Row
from tests.jobs import digits_job


def _rows(stages: int, folder: Path) -> tuple[list[Row], tuple[int, ...]]:
    run = Run.prepare(digits_job(stages=stages), Where(local=True))
    with contextlib.closing(RunDir.create(folder, run.spec)) as run_dir:
        return list(run.rows(run_dir)), run.blueprint.program.placement


def test_the_workers_shown_are_those_of_the_present_layout(tmp_path: Path) -> None:
    (three, before), (two, after) = _rows(3, tmp_path / "three"), _rows(2, tmp_path / "two")
    view = LiveProgress(Header("digits", len(three), placement=before), Console(file=io.StringIO()))
    for row in three:
        view.row(row)
    assert [worker.stages for worker in view.facts().workers] == [(0,), (1,), (2,)]
    view.lay_out(after)
    assert view.facts().workers == (), "until the first step of the new layout"
    for row in two:
        view.row(row)
    assert [worker.stages for worker in view.facts().workers] == [(0,), (1,)]
