"""Finds the checkpoint from which a run goes on, and the job with which it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.checkpoints.at_url import checkpoints_at
from cluster.checkpoints.folder import CheckpointFolder, damaged_files, newest_whole, read_manifest, require_fit
from cluster.checkpoints.manifest import MANIFEST, Manifest
from coordinator import run_files
from coordinator.job.resuming import changes_refused
from coordinator.job.spec import JobSpec, changed_job
from stages.errors import InvalidData, InvalidJob


@dataclass(frozen=True, slots=True)
class Resume:
    """A checkpoint to go on from, in the folder `place`. `run` is the run directory that has it; None if none has."""

    place: Path
    manifest: Manifest
    run: Path | None

    @property
    def step(self) -> int:
        """The number of updates that its state has."""
        return self.manifest.step

    def spec(self, overrides: Sequence[str], **replacements: object) -> JobSpec:
        """Return the checkpoint's job with changes, as `load_job` takes them. Raises InvalidJob with a line for each
        change that is not possible."""
        spec = changed_job(self.manifest.document, overrides, **replacements)
        if refused := changes_refused(self.manifest.document, spec.document()):
            raise InvalidJob(refused)
        return spec

    def require_fit(self, spec: JobSpec, fingerprint: int) -> None:
        """Raise InvalidData unless the checkpoint is of this job's model, and of data with this checksum."""
        require_fit(self.manifest, spec.model_spec(), spec.optimizer().state, self.place)
        if fingerprint != self.manifest.fingerprint:
            raise InvalidData(
                f"{spec.data.source}: is not the data that the run began with; a run goes on only with the same rows"
            )


def find_checkpoint(path: Path, notify: Callable[[str], None]) -> Resume:
    """Return the newest whole checkpoint of a run directory or at a URL, or the checkpoint in the folder `path`.

    A damaged one of a run directory is left out, and `notify` is called with a line about it. Raises InvalidData if
    there is none, or if the given one is damaged.
    """
    if (path / MANIFEST).is_file():
        manifest = read_manifest(path)
        if damage := damaged_files(path, manifest):
            raise InvalidData("\n".join(damage))
        within = path.absolute().parent
        run = within.parent if within.name == run_files.CHECKPOINTS else None
        return Resume(path.absolute(), manifest, run)
    if not isinstance(path, Path):  # at a URL
        if found := newest_whole(checkpoints_at(str(path)), lambda step, line: notify(line)):
            return Resume(*found, None)
        raise InvalidData(f"{path}: has no whole checkpoint")
    if not path.is_dir():
        raise InvalidData(f"{path}: {_WHAT if path.exists() else 'no such run directory or checkpoint'}")
    folder = CheckpointFolder(path.absolute() / run_files.CHECKPOINTS)
    if found := newest_whole(folder, lambda step, line: notify(line)):
        return Resume(*found, path.absolute())
    raise InvalidData(f"{path}: {_why_none(path)}")


_WHAT = "is a file; give a run directory, or the folder of a checkpoint"


def _why_none(path: Path) -> str:
    """Return why no run goes on from a folder without a whole checkpoint, and what to do."""
    if path.name.startswith(".step-"):
        return "is a checkpoint that was not written to its end; give the run directory, which has the one before it"
    if not any(path.iterdir()):
        return "is empty; give a run directory, or the folder of a checkpoint"
    if not (path / run_files.JOB).is_file():
        return (
            f"is neither a run directory nor a checkpoint: it has no {run_files.JOB} and no {MANIFEST}; give a run "
            "directory, or the folder of a checkpoint"
        )
    job, model = path / run_files.JOB, path / run_files.MODEL
    begin = f"; or begin with its weights: model.weights: {model}" if model.is_file() else ""
    return f"has no whole checkpoint to go on from; begin anew with `pipetrain train {job}`{begin}"
