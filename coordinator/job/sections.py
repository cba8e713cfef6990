"""The sections of a job file as frozen pydantic models. `coordinator.job.spec.JobSpec` puts them together.

Every leaf has a description that completes "must be …": problems are written with it (see coordinator.job.problems).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainValidator, model_validator

from coordinator.job.base_section import Section, as_tuple
from coordinator.job.data_section import one_line
from coordinator.job.layer_entries import LayerEntry
from coordinator.job.limits import MAX_DIMENSIONS, MAX_LAYERS
from coordinator.job.loss_entries import LOSS_KINDS, LossEntry
from coordinator.job.nearest import closest
from coordinator.job.optimizer_sections import OptimizerSection
from coordinator.job.rates import ConstantRate, ScheduleSection
from coordinator.job.schedule_names import AUTO, SCHEDULES, default_workers
from coordinator.job.source_names import extension, is_url
from coordinator.texts import BYTES_OF
from stages.spec import InitSpec

LARGEST = 2**63 - 1  # whole numbers of a job fit into 64 bits


def _bytes(value: object) -> object:
    """Return the bytes of a text such as "512MiB"; return numbers unchanged."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)", value.strip())
    if match is None:
        raise ValueError
    unit = match[2] or "B"
    if unit not in BYTES_OF:
        known = {name.lower(): name for name in BYTES_OF}
        near = closest(unit, known, 0.6)
        raise ValueError(f"did you mean {match[1]}{known[near]}?" if near else "")
    return round(float(match[1]) * BYTES_OF[unit])


def bytes_text(n_bytes: int) -> str | int:
    """Return a number of bytes as a job file has it: "512MiB" if that is exact, else the plain number."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if n_bytes and n_bytes % BYTES_OF[unit] == 0:
            return f"{n_bytes // BYTES_OF[unit]}{unit}"
    return n_bytes


def _weights(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not one_line(value) or is_url(value) or extension(value) in _NO_WEIGHTS:
        raise ValueError
    return value


_NO_WEIGHTS = (
    ".pt",
    ".pth",
    ".ckpt",
    ".bin",
    ".pkl",
    ".pickle",
    ".npz",
    ".npy",
    ".h5",
    ".hdf5",
    ".onnx",
    ".gguf",
    ".zip",
)
"""Extensions of other programs' weights. A run directory's name may have any other one."""


def _weights_map(value: object) -> dict[str, str | None] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError
    found: dict[str, str | None] = {}
    for old, new in value.items():
        if isinstance(old, float) or isinstance(new, float):  # 4.10 and 4.1 are one number, but two paths
            raise ValueError("write a path with a dot in quotes")
        right = not isinstance(old, bool) and isinstance(old, (str, int)) and str(old)
        if not right or isinstance(new, bool) or not (new is None or (isinstance(new, (str, int)) and str(new))):
            raise ValueError
        found[str(old)] = None if new is None else str(new)
    return found


def _freeze(value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError
    if any(isinstance(path, float) for path in value):  # 4.10 and 4.1 are one number, but two paths
        raise ValueError("write a path with a dot in quotes")
    if any(isinstance(path, bool) or not isinstance(path, (str, int)) or not str(path) for path in value):
        raise ValueError
    return tuple(dict.fromkeys(map(str, value)))


def _stages(value: object) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST:
        raise ValueError
    return value


def _partition(value: object) -> Literal["auto", "measured"] | tuple[int, ...]:
    if isinstance(value, str) and value in ("auto", "measured"):
        return "auto" if value == "auto" else "measured"
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError
    if any(isinstance(count, bool) or not isinstance(count, int) or count < 1 for count in value):
        raise ValueError
    return tuple(value)


def _recompute(value: object) -> Literal["none", "full", "auto"] | tuple[int, ...]:
    if value == "none" or value == "full" or value == "auto":
        return value
    if not isinstance(value, (list, tuple)) or any(isinstance(s, bool) or not isinstance(s, int) for s in value):
        raise ValueError
    if any(s < 0 for s in value):
        raise ValueError
    return tuple(value)


def _schedule(value: object) -> str:
    if not isinstance(value, str) or not one_line(value):
        raise ValueError
    if value not in (*SCHEDULES, AUTO) and not value.lower().endswith(".csv"):
        raise ValueError
    return value


def _layers(value: object) -> object:
    return _at_most(MAX_LAYERS, value)


def _dimensions(value: object) -> object:
    return _at_most(MAX_DIMENSIONS, value)


def _at_most(most: int, value: object) -> object:
    if isinstance(value, (list, tuple)) and len(value) > most:
        raise ValueError(f"it has {len(value):,}, at most {most:,} are allowed")
    return as_tuple(value)


def _folder(value: object) -> bool | str:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or not value or not one_line(value):
        raise ValueError
    return value


def _tracking_uri(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not one_line(value):
        raise ValueError
    if value.lower().startswith(("file:", "/", ".")):
        raise ValueError("MLflow no longer keeps runs in folders; write sqlite:///mlflow.db for a database file")
    if value != "databricks" and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://.", value) is None:
        raise ValueError
    return value


Count = Annotated[int, Field(ge=1, le=LARGEST, description="a whole number, at least 1")]
Size = Annotated[int, Field(ge=1, le=2**31 - 1)]


class InitSection(Section):
    """`model.init`: how weights are drawn."""

    std: float = Field(ge=0, description="a number, at least 0")
    scale_residual: bool = Field(default=False, description="true or false")

    def spec(self) -> InitSpec:
        """Return the rule as workers receive it."""
        return InitSpec(std=self.std, scale_residual=self.scale_residual)


class ModelSection(Section):
    """`model`: the shape of one sample, the layers, the loss, how weights are drawn."""

    input: Annotated[tuple[Size, ...] | None, BeforeValidator(_dimensions)] = Field(
        default=None,
        min_length=1,
        description="the shape of one sample, a list of whole numbers such as [64]",
    )
    layers: Annotated[tuple[LayerEntry, ...], BeforeValidator(_layers)] = Field(
        min_length=1, description="a list of layers such as [linear: {units: 10}, relu]"
    )
    loss: LossEntry = Field(description=f"{', '.join(LOSS_KINDS[:-1])} or {LOSS_KINDS[-1]}")
    vocabulary: int | None = Field(
        default=None, ge=2, le=2**31 - 1, description="a whole number, at least 2, for token numbers as input, or null"
    )
    init: InitSection | None = Field(default=None, description="a section with std, scale_residual")
    weights: Annotated[str | None, PlainValidator(_weights)] = Field(
        default=None, description="a .safetensors file, a run directory or a checkpoint to begin with, or null"
    )
    weights_map: Annotated[dict[str, str | None] | None, PlainValidator(_weights_map)] = Field(
        default=None,
        description="a mapping of paths there to paths here, such as {'4': 6}, {} for the same paths, or null",
    )
    freeze: Annotated[tuple[str, ...], PlainValidator(_freeze)] = Field(
        default=(), description="a list of layers or parameters by their paths, such as [0, '4.1', '6.bias']"
    )


class TrainingSection(Section):
    """`training`: for how long, in batches of which size, with which optimizer."""

    epochs: Count | None = Field(default=None, description="a whole number, at least 1; or give steps")
    steps: Count | None = Field(default=None, description="a whole number, at least 1; or give epochs")
    batch_size: Count = Field(description="a whole number of rows, at least 1")
    micro_batches: Count = 1
    evaluate_batch_size: Count = Field(default=1, description="a whole number of rows, at least 1")
    optimizer: OptimizerSection
    schedule: ScheduleSection = ScheduleSection(constant=ConstantRate())
    clip_norm: float | None = Field(default=None, gt=0, description="a number above 0, or null for no clipping")
    evaluate_every: Count | None = Field(
        default=None, description="a whole number of steps, at least 1, or null for the end of each epoch"
    )

    log_every: Count = Field(default=1, description="a whole number of steps, at least 1")

    @model_validator(mode="before")
    @classmethod
    def _evaluate_as_trained(cls, value: object) -> object:
        """`evaluate_batch_size` is `batch_size` if it is not given."""
        if isinstance(value, dict) and value.get("evaluate_batch_size") is None and "batch_size" in value:
            size = value["batch_size"]
            right = isinstance(size, int) and not isinstance(size, bool) and 1 <= size <= LARGEST
            return {**value, "evaluate_batch_size": size if right else 1}
        return value

    def n_steps(self, steps_per_epoch: int) -> int:
        """Return the number of updates of the whole job."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None, "a job has epochs or steps"
        return self.epochs * steps_per_epoch

    def rates(self, steps_per_epoch: int) -> Callable[[int], float]:
        """Return a function that gives the learning rate of update number `step`, from 1."""
        base = self.optimizer.chosen.learning_rate
        return self.schedule.rates(base, self.n_steps(steps_per_epoch), steps_per_epoch)


class PipelineSection(Section):
    """`pipeline`: how the layers are cut into stages, and in which order stages process micro-batches."""

    stages: Annotated[int | Literal["auto"], PlainValidator(_stages)] = Field(
        default=1, description="a whole number, at least 1, or auto: as many as the cluster has room for"
    )
    workers: Count | None = Field(default=None, description="a whole number, at least 1, or null to follow schedule")
    schedule: Annotated[str, PlainValidator(_schedule)] = Field(
        default="1f1b",
        description=f"{', '.join(SCHEDULES)}, {AUTO} or a .csv file",
        json_schema_extra={"choices": [*SCHEDULES, AUTO]},
    )
    partition: Annotated[Literal["auto", "measured"] | tuple[int, ...], PlainValidator(_partition)] = Field(
        default="auto",
        description="auto, measured or a list with the layers of each stage, at least 1 each, such as [2, 3]",
    )
    weight_grad_group: Count = Field(default=1, description="a whole number of micro-batches, at least 1")
    recompute: Annotated[Literal["none", "full", "auto"] | tuple[int, ...], PlainValidator(_recompute)] = Field(
        default="none",
        description="none, full, auto or a list of stages such as [0, 2]",
        json_schema_extra={"choices": ["none", "full", "auto"]},
    )

    @model_validator(mode="before")
    @classmethod
    def _stages_of_the_partition(cls, value: object) -> object:
        """`stages` follows from the partition if only that is given."""
        if isinstance(value, dict) and "stages" not in value and isinstance(value.get("partition"), (list, tuple)):
            return {**value, "stages": max(1, len(value["partition"]))}
        return value

    @property
    def is_auto(self) -> bool:
        """Whether the job says `pipeline: auto`, and the settings are not chosen yet."""
        return False

    @property
    def n_stages(self) -> int:
        """The number of stages of a job whose layout is known."""
        assert self.stages != "auto", "coordinator.plan.layout decides it"
        return self.stages

    @property
    def n_workers(self) -> int | None:
        """The number of workers; None if the lines of a schedule file, or the room in the cluster, decide it."""
        if self.workers is not None:
            return self.workers
        if self.schedule not in (*SCHEDULES, AUTO) or self.stages == "auto":
            return None
        return default_workers(self.schedule, self.stages)


class AutoPipeline(PipelineSection):
    """`pipeline: auto`: coordinator.plan.choosing replaces it by a section before the job is planned."""

    stages: Literal["auto"] = "auto"

    @property
    def is_auto(self) -> bool:
        """See PipelineSection."""
        return True


def pipeline_section(value: object) -> object:
    """Return `auto` as a section, and any other value unchanged."""
    return AutoPipeline() if value == "auto" else value


class ResourcesSection(Section):
    """`resources`: what each worker may use."""

    cpus_per_worker: Count = Field(default=1, description="a whole number of CPUs and of BLAS threads, at least 1")
    memory_per_worker: Annotated[int | None, Field(ge=1, le=LARGEST), BeforeValidator(_bytes)] = Field(
        default=None, description="a size such as 1GiB, 512MiB or a number of bytes, or null for no limit"
    )
    hang_timeout: float = Field(
        default=60.0, gt=0, le=2_592_000, description="a number of seconds above 0, at most 30 days"
    )


class TrackingSection(Section):
    """`tracking`: the trackers that receive the rows of metrics. It changes nothing in the training."""

    tensorboard: Annotated[bool | str, PlainValidator(_folder)] = Field(
        default=False, description="true (the folder tensorboard of the run directory), false, or a folder"
    )
    mlflow: Annotated[str | None, PlainValidator(_tracking_uri)] = Field(
        default=None,
        description="the URI of a server or a database, such as http://HOST:5000 or sqlite:///mlflow.db, or null",
    )

    def document(self) -> dict[str, bool | str]:
        """Return the trackers that are on."""
        wanted = {"tensorboard": self.tensorboard, "mlflow": self.mlflow}
        return {name: value for name, value in wanted.items() if value}
