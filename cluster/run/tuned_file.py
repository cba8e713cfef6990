"""Writes a job file with other settings: the user's own text with a few entries changed or, if that is not simple, the
whole job."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from cluster.run.saved_model import write_whole
from coordinator.job.edited_text import edited
from coordinator.job.spec import JobSpec, load_job
from coordinator.plan.settings import PipelineSettings, changed_entries, with_settings
from stages.errors import InvalidJob, UserMistake


def write_tuned(job: Path, spec: JobSpec, settings: PipelineSettings, output: Path) -> bool:
    """Write the job of the file `job`, which was read as `spec`, with these settings. Return whether the text of the
    file, with its comments, was kept. Raises UserMistake."""
    wanted = with_settings(spec, settings)
    text = None
    with contextlib.suppress(OSError, UnicodeDecodeError):
        text = edited(job.read_text(encoding="utf-8"), changed_entries(spec, settings))
    try:
        kept = text is not None and _reads_as(text, output, wanted)
        write_whole(output, (text if kept and text is not None else wanted.to_yaml()).encode())
    except OSError as error:
        raise UserMistake(f"--output: {output} cannot be written: {error.strerror}") from None
    return kept


def _reads_as(text: str, output: Path, wanted: JobSpec) -> bool:
    """Whether the text, as the file `output`, is the job that is wanted."""
    with tempfile.NamedTemporaryFile(mode="w", suffix=".yaml", dir=output.absolute().parent, encoding="utf-8") as file:
        file.write(text)
        file.flush()
        try:
            return load_job(Path(file.name), name=wanted.name).document() == wanted.document()
        except InvalidJob:
            return False
