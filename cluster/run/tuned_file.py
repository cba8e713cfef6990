"""Writes a job file with other settings: the user's own text with a few entries changed or, if that is not simple, the
whole job."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path

from cluster.run.saved_model import write_whole
from coordinator.job.edited_text import edited
from coordinator.job.spec import JobSpec, load_job
from coordinator.plan.settings import PipelineSettings, changed_entries, with_settings
from coordinator.schedules.csv_format import load_csv, write_csv
from stages.actions import Program
from stages.errors import InvalidJob, InvalidSchedule, UserMistake


def write_tuned(
    job: Path, spec: JobSpec, settings: PipelineSettings, output: Path, program: Program | None = None
) -> bool:
    """Write the job of the file `job`, which was read as `spec`, with these settings; with `program`, also its schedule
    file (`schedule_file`). Return whether the text of the file, with its comments, was kept. Raises UserMistake."""
    beside = None if program is None else schedule_file(output)
    if beside is not None:
        require_no_other_file(output)
        settings = replace(settings, schedule=str(beside.absolute()))
    wanted, changes = with_settings(spec, settings), changed_entries(spec, settings)
    if beside is not None:
        changes["pipeline.schedule"] = beside.name
    text = None
    with contextlib.suppress(OSError, UnicodeDecodeError):
        text = edited(job.read_text(encoding="utf-8"), changes)
    try:
        if beside is not None and program is not None:
            write_whole(beside, write_csv(program).encode())
        kept = text is not None and _reads_as(text, output, wanted)
        write_whole(output, (text if kept and text is not None else wanted.to_yaml()).encode())
    except OSError as error:
        raise UserMistake(f"--output: {output} cannot be written: {error.strerror}") from None
    return kept


def schedule_file(output: Path) -> Path:
    """Return the name of the schedule file beside a job file."""
    return output.with_name(f"{output.stem}.schedule.csv")


def require_no_other_file(output: Path) -> None:
    """Raise UserMistake if a file that is no schedule has the name of the schedule file."""
    beside = schedule_file(output)
    try:
        if beside.exists():
            load_csv(beside)
    except (InvalidSchedule, OSError):
        raise UserMistake(f"--output: {beside} exists and is no schedule; name another file") from None


def _reads_as(text: str, output: Path, wanted: JobSpec) -> bool:
    """Whether the text, as the file `output`, is the job that is wanted."""
    with tempfile.NamedTemporaryFile(mode="w", suffix=".yaml", dir=output.absolute().parent, encoding="utf-8") as file:
        file.write(text)
        file.flush()
        try:
            return load_job(Path(file.name), name=wanted.name).document() == wanted.document()
        except InvalidJob:
            return False
