"""A soak: trains a job undisturbed, then with a random campaign of faults, and compares everything."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.actors.ray_session import ray_session
from cluster.chaos.leaks import Held, leaks
from cluster.checkpoints.folder import CheckpointFolder
from cluster.run.run_dir import RunDir, default_run_dir
from cluster.run.training import Run, Where
from coordinator import run_files
from coordinator.chaos.campaign import campaign
from coordinator.chaos.report import Outcome, other_losses, outcomes
from coordinator.chaos.timetable import Timetable
from coordinator.job.spec import JobSpec, load_job, parse_job
from stages.errors import UserMistake
from stages.orders import Fault

_EXACT = ("kind", "step", "epoch", "samples", "loss", "accuracy", "grad_norm", "learning_rate", "perplexity", "steps")
_CHECKPOINTS = 20  # of a job that has no section `checkpoint`
NOT_SAVED = "checkpoint not saved"
UNDISTURBED, DISTURBED = "undisturbed", "disturbed"
"""The run directories of a soak, in its folder."""
REPORT = "soak.json"
"""The report, in its folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakReport:
    """The result of a soak. `differences` says what is not bitwise the same as in the undisturbed run, `left` what the
    disturbed run left behind, `other_losses` why workers were lost without a fault."""

    job: str
    seed: int
    folder: Path
    steps: int
    undisturbed_s: float
    disturbed_s: float
    faults: tuple[Outcome, ...]
    differences: tuple[str, ...]
    left: tuple[str, ...]
    other_losses: tuple[str, ...] = ()

    @property
    def identical(self) -> bool:
        """Whether weights, optimizer's vectors and rows are bitwise those of the undisturbed run."""
        return not self.differences

    @property
    def ok(self) -> bool:
        """Whether everything is identical and nothing was left behind."""
        return self.identical and not self.left

    def document(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {**asdict(self), "folder": str(self.folder), "identical": self.identical, "ok": self.ok}


class Soak:
    """A soak of a job with so many faults. `plan` is known before anything runs. Raises UserMistake for a wrong job."""

    def __init__(
        self, job: JobSpec | str | Path, *, faults: int = 50, seed: int = 0, address: str | None = None
    ) -> None:
        spec = job if isinstance(job, JobSpec) else load_job(Path(job))
        self.seed, self._address = seed, address
        prepared = Run.prepare(_without_trackers(spec), Where(address=address))
        self.steps_total = prepared.steps_total
        self.spec = _for_soak(prepared.spec, faults, self.steps_total)
        self._workers = prepared.blueprint.n_workers
        rows = len(prepared.data.train), len(prepared.data.validation)
        self.plan = campaign(seed, faults, Timetable(prepared.blueprint, *rows))

    def run(self, folder: Path | None = None, note: Callable[[str], None] = lambda text: None) -> SoakReport:
        """Train twice into the new folder `folder`, and compare. `note` is called with what happens. Raises what
        training raises: a soak whose run fails has no report."""
        folder = folder or default_run_dir(self.spec.replace(name=f"{self.spec.name}-soak"))
        resources, n = self.spec.resources, self._workers
        memory = (resources.memory_per_worker or 0) * n
        with ray_session(self._address, cpus=resources.cpus_per_worker * n, memory=memory) as ray:
            return self.compare(folder, Where(session=ray), note)

    def compare(self, folder: Path, where: Where, note: Callable[[str], None] = lambda text: None) -> SoakReport:
        """As `run`, with workers at `where`."""
        if folder.exists() and any(folder.iterdir()):
            raise UserMistake(f"{folder}: is not empty; choose another folder")
        note(f"undisturbed: {self.steps_total} steps into {folder / UNDISTURBED}")
        undisturbed_s = self._train(folder / UNDISTURBED, {}, where, note)
        before = Held.now()
        note(f"with {len(self.plan)} faults: into {folder / DISTURBED}")
        faults: dict[int, list[Fault]] = {}
        for worker, fault in self.plan:
            faults.setdefault(worker, []).append(fault)
        disturbed_s = self._train(folder / DISTURBED, faults, where, note)
        events = list(_lines(folder / DISTURBED / run_files.EVENTS))
        report = SoakReport(
            job=self.spec.name,
            seed=self.seed,
            folder=folder,
            steps=self.steps_total,
            undisturbed_s=undisturbed_s,
            disturbed_s=disturbed_s,
            faults=outcomes(self.plan, events),
            differences=tuple(differences(folder / UNDISTURBED, folder / DISTURBED)),
            left=tuple(leaks(before, _worker_pids(events), folder / DISTURBED)),
            other_losses=tuple(other_losses(events)),
        )
        (folder / REPORT).write_text(json.dumps(report.document(), indent=1) + "\n")
        return report

    def _train(self, path: Path, faults: Mapping[int, list[Fault]], where: Where, note: Callable[[str], None]) -> float:
        run = Run.prepare(self.spec, where, faults=faults)
        run_dir = RunDir.create(path, run.spec)
        run.warn = note
        began = time.monotonic()
        try:
            for _ in run.rows(run_dir):
                pass
        finally:
            run_dir.close()
        return time.monotonic() - began


def soak(
    job: JobSpec | str | Path,
    *,
    faults: int = 50,
    seed: int = 0,
    folder: str | Path | None = None,
    address: str | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> SoakReport:
    """Train a job undisturbed, then with a random campaign of faults, and compare everything.

    The campaign follows from the seed. The runs go into a new folder, `runs/NAME-soak-TIME` by default. `note` is
    called with what happens. Raises UserMistake for a wrong job, and JobFailed if a run fails.
    """
    return Soak(job, faults=faults, seed=seed, address=address).run(None if folder is None else Path(folder), note)


def _without_trackers(spec: JobSpec) -> JobSpec:
    return parse_job({key: value for key, value in spec.document().items() if key != "tracking"})


def _for_soak(spec: JobSpec, faults: int, steps: int) -> JobSpec:
    """Return the job with as many restarts as the faults may need, no pauses between them, and checkpoints."""
    document = dict(spec.document())
    restarts = spec.recovery.max_restarts
    document["recovery"] = {"max_restarts": restarts + 2 * faults, "backoff": 0.0}
    if spec.checkpoint is None:
        document["checkpoint"] = {"every_steps": max(1, steps // _CHECKPOINTS)}
    return parse_job(document)


def differences(expected: Path, found: Path) -> Iterator[str]:
    """Yield a line for each result of a run directory that is not bitwise that of another one. A last checkpoint that
    could not be written is no difference: the model is there."""
    for name in (run_files.MODEL, run_files.MODEL_LAYERS):
        if (expected / name).read_bytes() != (found / name).read_bytes():
            yield f"{name} differs"
    last = [CheckpointFolder(run / run_files.CHECKPOINTS) for run in (expected, found)]
    ends = [folder.place(folder.steps()[-1]) for folder in last]
    unsaved = {event["step"] for event in _lines(found / run_files.EVENTS) if event["event"] == NOT_SAVED}
    if last[0].steps()[-1] in unsaved:
        pass
    elif ends[0].name != ends[1].name:
        yield f"the last checkpoint is {ends[1].name}, not {ends[0].name}"
    else:
        for file in sorted(ends[0].glob("layer-*")):
            other = ends[1] / file.name
            if not other.is_file() or other.read_bytes() != file.read_bytes():
                yield f"{ends[1].name}/{file.name} differs"
    rows = [[{k: row[k] for k in _EXACT if k in row} for row in _lines(run / run_files.METRICS)] for run in
            (expected, found)]  # fmt: skip
    if len(rows[0]) != len(rows[1]):
        yield f"{run_files.METRICS} has {len(rows[1])} rows, not {len(rows[0])}"
    for one, other in zip(*rows, strict=False):
        if one != other:
            yield f"{run_files.METRICS}: {other}, not {one}"
            return


def _worker_pids(events: list[Mapping[str, Any]]) -> set[int]:
    told = [event["workers"] for event in events if event.get("event") in ("started", "recovered")]
    return {int(at["pid"]) for workers in told for at in workers}


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    for line in path.read_bytes().splitlines():
        yield json.loads(line)
