"""The settings of a job that decide how fast its steps are: what `pipetrain tune` tries and `pipeline: auto` chooses.

[Note: settings and bits] Stages, workers, schedule, cut and recomputation change no bit of the weights.
`training.micro_batches` and `pipeline.weight_grad_group` decide in which order weight gradients are added, so they
change the rounding. They are chosen once, before the first step, and stand in the run's job file from then on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from coordinator.job.schedule_names import default_workers
from coordinator.job.sections import PipelineSection
from coordinator.job.spec import JobSpec, parse_job
from coordinator.texts import counted

NAMES = ("stages", "workers", "schedule", "partition", "micro_batches", "weight_grad_group", "recompute")
"""The settings, by the names of their entries in the job file."""
CHANGES_BITS = ("training.micro_batches", "pipeline.weight_grad_group")
"""The entries that change the rounding ([Note: settings and bits])."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSettings:
    """One choice of all settings. `partition` is `auto` or the layers of each stage; `recompute` as in the job file."""

    stages: int
    workers: int
    schedule: str
    micro_batches: int
    weight_grad_group: int = 1
    recompute: Literal["none", "full", "auto"] | tuple[int, ...] = "none"
    partition: Literal["auto", "measured"] | tuple[int, ...] = "auto"

    def __str__(self) -> str:
        """The settings as a person reads them: `2 workers, zb-h1, 8 micro-batches`."""
        parts = [counted(self.workers, "worker")]
        if self.stages != self.workers:
            parts.append(counted(self.stages, "stage"))
        if self.stages > 1 or self.schedule != "1f1b":  # of one stage, others keep more and take the same time
            parts.append(self.schedule)
        parts.append(counted(self.micro_batches, "micro-batch"))
        if self.weight_grad_group > 1:
            parts.append(f"weight gradients in groups of {self.weight_grad_group}")
        if self.recompute != "none":
            parts.append(f"recompute {_text(self.recompute)}")
        if self.partition != "auto":
            parts.append(f"cut {_text(self.partition)}")
        return ", ".join(parts)

    def differences(self, other: PipelineSettings) -> tuple[str, ...]:
        """Return the names of the settings that are not the same."""
        return tuple(f.name for f in fields(self) if getattr(self, f.name) != getattr(other, f.name))

    def entries(self) -> dict[str, Any]:
        """Return the entries of the job file, by their paths. `workers` is null if it follows from the schedule."""
        follows = default_workers(self.schedule, self.stages) == self.workers
        return {
            "pipeline.stages": self.stages,
            "pipeline.workers": None if follows else self.workers,
            "pipeline.schedule": self.schedule,
            "pipeline.partition": _plain(self.partition),
            "pipeline.weight_grad_group": self.weight_grad_group,
            "pipeline.recompute": _plain(self.recompute),
            "training.micro_batches": self.micro_batches,
        }


def settings_of(spec: JobSpec, *, n_workers: int) -> PipelineSettings:
    """Return the settings of a job whose number of stages is known, on `n_workers` workers."""
    pipeline = spec.pipeline
    return PipelineSettings(
        stages=pipeline.n_stages,
        workers=n_workers,
        schedule=pipeline.schedule,
        micro_batches=spec.training.micro_batches,
        weight_grad_group=pipeline.weight_grad_group,
        recompute=pipeline.recompute,
        partition=pipeline.partition,
    )


def with_settings(spec: JobSpec, settings: PipelineSettings) -> JobSpec:
    """Return the job with these settings, checked as a whole. Raises InvalidJob."""
    document = spec.document()
    document["pipeline"] = {}
    for path, value in settings.entries().items():
        section, _, name = path.partition(".")
        document[section][name] = value
    return parse_job(document)


def with_settings_of(spec: JobSpec, other: JobSpec) -> JobSpec:
    """Return the job with the settings of another one: the same job whose data was read."""
    document, settled = spec.document(), other.document()
    document["pipeline"] = settled["pipeline"]
    document["training"]["micro_batches"] = settled["training"]["micro_batches"]
    return parse_job(document)


def trial_job(spec: JobSpec, settings: PipelineSettings) -> JobSpec:
    """Return the job with these settings, for a comparison of many: it shares the network with `spec`, and nothing is
    checked again."""
    entries = {path.removeprefix("pipeline."): value for path, value in settings.entries().items()}
    parts = entries.pop("training.micro_batches")
    training = spec.training.model_copy(update={"micro_batches": parts})
    return spec.model_copy(update={"pipeline": PipelineSection.model_validate(entries), "training": training})


def changed_entries(before: JobSpec, settings: PipelineSettings) -> dict[str, Any]:
    """Return the entries of `settings` that the job `before` does not have already, by their paths."""
    document: Mapping[str, Any] = before.document()
    chosen = document["pipeline"] == "auto"
    return {
        path: value
        for path, value in settings.entries().items()
        if (chosen and path.startswith("pipeline.")) or _at(document, path) != value
    }


def _at(document: Mapping[str, Any], path: str) -> Any:
    section, _, name = path.partition(".")
    return document[section].get(name)


def _plain(value: object) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _text(value: object) -> str:
    return str(_plain(value))
