"""The job: what a user submits, read from YAML, validated as a whole, every default filled in.

spec = load_job(Path("examples/digits.yaml"), ["training.epochs=3"], stages=2)
spec.model_spec(), spec.optimizer(), spec.pipeline.stages
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from coordinator import run_files
from coordinator.job.base_section import Section
from coordinator.job.checkpoint_section import CheckpointSection
from coordinator.job.checks import cross_problems
from coordinator.job.data_section import DataSection
from coordinator.job.entries import too_much, wrong_texts
from coordinator.job.layer_entries import CLASSES
from coordinator.job.limits import MAX_DOCUMENT_BYTES, MAX_PROBLEMS
from coordinator.job.nearest import closest
from coordinator.job.overrides import apply_override, apply_replacement
from coordinator.job.problems import problems_of
from coordinator.job.recovery_section import RecoverySection
from coordinator.job.sections import (
    LARGEST,
    ModelSection,
    PipelineSection,
    ResourcesSection,
    TrackingSection,
    TrainingSection,
    bytes_text,
    pipeline_section,
)
from coordinator.job.source_names import (
    files_named,
    is_url,
    resolve_database,
    resolve_file,
    resolve_path,
    resolve_source,
    target_file,
)
from coordinator.job.yaml_text import read_yaml, write_yaml
from stages.errors import InvalidJob
from stages.spec import ModelSpec, OptimizerSpec, Precision


class JobSpec(Section):
    """A whole job, validated. `load_job` and `parse_job` make it; docs/job-file.md describes each entry.

    Equal specs describe the same training, bit for bit, on the same machine.
    """

    name: str = Field(
        default="job",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\z",
        description="a name of at most 100 letters, digits, . _ and -, first a letter or a digit",
    )
    seed: int = Field(default=0, ge=0, le=LARGEST, description="a whole number, at least 0")
    precision: Precision = Field(default="float32", description="float32 or float64")
    model: ModelSection
    data: DataSection
    training: TrainingSection
    pipeline: Annotated[PipelineSection, BeforeValidator(pipeline_section)] = PipelineSection()
    resources: ResourcesSection = ResourcesSection()
    checkpoint: CheckpointSection | None = Field(
        default=None, description="a section with every_steps, every_seconds or stall_budget, keep …, or null for none"
    )
    recovery: RecoverySection = RecoverySection()
    tracking: TrackingSection = TrackingSection()

    def model_spec(self) -> ModelSpec:
        """Return the network as workers receive it, each time the same object, so that its operations are built once.

        Raises InvalidJob if entries that follow from the data are still open (see `resolved`).
        """
        if not self.is_resolved:
            raise InvalidJob(
                ["model.input: missing, must be the shape of one sample; only text and tables can give it"]
            )
        return self._network

    @property
    def is_resolved(self) -> bool:
        """Whether the network is known without the data."""
        return self.model.input is not None and not any(layer.is_open for layer in self.model.layers)

    def resolved(self, positions: int, vocabulary: int) -> JobSpec:
        """Return the same job with `model.input`, `vocabulary` and `units: classes` filled in for tokens. Raises
        InvalidJob."""
        if self.is_resolved:
            return self
        document = self.document()
        model = document["model"]
        model.setdefault("vocabulary", vocabulary)
        model["input"] = model.get("input") or [positions]
        model["layers"] = _with_units(model["layers"], model["vocabulary"])
        return parse_job(document)

    def fitted(
        self, n_inputs: int | Sequence[int], n_classes: int | None, target: Sequence[str] | None = None
    ) -> JobSpec:
        """Return the same job with `model.input`, `units: classes` and `data.target` filled in for rows of numbers.

        `n_inputs`: numbers of a row, or its shape; `n_classes`: None if the targets are numbers. Raises InvalidJob.
        """
        document = self.document()
        model = document["model"]
        if model.get("input") is None:
            model["input"] = [n_inputs] if isinstance(n_inputs, int) else list(n_inputs)
        if n_classes is not None:
            model["layers"] = _with_units(model["layers"], n_classes)
        if target is not None:
            document["data"]["target"] = list(target)
        return parse_job(document)

    @cached_property
    def _network(self) -> ModelSpec:  # not a field: it is not part of equality, hash or document
        return ModelSpec(
            input_shape=self.model.input or (),
            layers=tuple(layer.spec() for layer in self.model.layers),
            loss=self.model.loss.spec(),
            precision=self.precision,
            seed=self.seed,
            vocabulary=self.model.vocabulary or 0,
            init=None if self.model.init is None else self.model.init.spec(),
            freeze=self.model.freeze,
        )

    def optimizer(self) -> OptimizerSpec:
        """Return the optimizer as workers receive it."""
        return self.training.optimizer.spec()

    def document(self) -> dict[str, Any]:
        """Return the job as plain lists, mappings, texts and numbers, with every default; with `tracking` only if it is
        on."""
        document: dict[str, Any] = _plain(self.model_dump())
        document["model"]["layers"] = [layer.document() for layer in self.model.layers]
        document["model"]["loss"] = self.model.loss.document()
        document["data"] = _plain(self.data.document())
        document["training"]["optimizer"] = _plain(self.training.optimizer.document())
        document["training"]["schedule"] = self.training.schedule.document()
        if not self.model.freeze:
            del document["model"]["freeze"]
        if self.pipeline.is_auto:
            document["pipeline"] = "auto"
            if "micro_batches" not in self.training.model_fields_set:  # it is chosen, too
                del document["training"]["micro_batches"]
        if self.training.log_every == 1:
            del document["training"]["log_every"]
        for section, names in (
            ("model", ("input", "vocabulary", "init", "weights", "weights_map")),
            ("training", ("epochs", "steps", "evaluate_every")),
        ):
            for name in names:
                if document[section][name] is None:
                    del document[section][name]
        memory = self.resources.memory_per_worker
        document["resources"]["memory_per_worker"] = None if memory is None else bytes_text(memory)
        document.pop("checkpoint")
        if "checkpoint" in self.model_fields_set:  # null is not the same as nothing: the service adds a section then
            document["checkpoint"] = None if self.checkpoint is None else self.checkpoint.document()
        if self.recovery == RecoverySection():
            del document["recovery"]
        del document["tracking"]
        if wanted := self.tracking.document():
            document["tracking"] = wanted
        return document

    def to_yaml(self) -> str:
        """Return the resolved job as a job file. `load_job` of that file gives an equal spec."""
        return write_yaml(self.document())

    def replace(self, **replacements: object) -> JobSpec:
        """Return the same job with some entries changed, validated again.

        `stages=2` or `schedule="gpipe"` change `pipeline`; for other sections, `training__epochs=1` gives the path.
        None leaves an entry as it is. Raises InvalidJob.
        """
        document = self.document()
        problems = [line for key, value in replacements.items() for line in apply_replacement(document, key, value)]
        if problems:
            raise InvalidJob(problems)
        return parse_job(document)

    def relocated(self, places: Mapping[str, str]) -> JobSpec:
        """Return the same job with its files in other places: `places` maps the old path of each moved file to the new
        one."""
        document = self.document()
        for entry, name in files_named(document).items():
            section, _, key = entry.partition(".")
            document[section][key] = places.get(name, name)
        return parse_job(document)


def parse_job(document: object) -> JobSpec:
    """Return the job that a parsed document describes. Raises InvalidJob with a line for every mistake in it."""
    return _parse(document, ())


def load_job(path: Path, overrides: Sequence[str] = (), **replacements: object) -> JobSpec:
    """Read a job file.

    `overrides` are `a.b=c` as `--set` takes them, with c in YAML; list entries are `model.layers[0]`.
    `replacements` are those of `JobSpec.replace`, made last. A relative path to a file is
    relative to the job file's folder; in an override or a replacement, to the working directory.
    Without a `name` the job has the name of its file. Raises InvalidJob with a line for every mistake.
    """
    document, problems = read_yaml(_read_text(path))
    if document is None:
        raise InvalidJob([f"{path}: {line}" for line in problems or ["is empty; a job needs model, data and training"]])
    if isinstance(document, dict):
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")[:100]
        document.setdefault("name", name or "job")
        _resolve_paths(document, path.absolute().parent)
        for override in overrides:
            problems += apply_override(document, override)
        for key, value in replacements.items():
            problems += apply_replacement(document, key, value)
        _resolve_paths(document, Path.cwd())
    return _parse(document, problems)


def changed_job(document: Mapping[str, Any], overrides: Sequence[str] = (), **replacements: object) -> JobSpec:
    """Return the job of a document with overrides and replacements, as `load_job` takes them. Raises InvalidJob."""
    changed, problems = copy.deepcopy(dict(document)), list[str]()
    for override in overrides:
        problems += apply_override(changed, override)
    for key, value in replacements.items():
        problems += apply_replacement(changed, key, value)
    _resolve_paths(changed, Path.cwd())
    return _parse(changed, problems)


def _parse(document: object, problems: Sequence[str]) -> JobSpec:
    if limit := too_much(document):
        raise InvalidJob([*problems, limit])
    texts = wrong_texts(document)
    wrong, lines, spec = [path for path, _ in texts], [*problems, *(line for _, line in texts)], None
    try:
        spec = JobSpec.model_validate(document)
    except ValidationError as error:
        found = [(path, line) for path, line in problems_of(error, JobSpec) if path not in wrong]
        wrong += [path for path, _ in found]
        lines += [line for _, line in found]
    lines += cross_problems(document, wrong)
    if len(lines) > MAX_PROBLEMS:
        lines[MAX_PROBLEMS:] = [f"and {len(lines) - MAX_PROBLEMS:,} more problems"]
    if lines or spec is None:
        raise InvalidJob(lines)
    return spec


def _plain(value: Any) -> Any:
    """Return the value with lists for tuples, at any depth."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value


def _with_units(layers: Any, units: int) -> Any:
    """Return the document's layers with a number instead of `classes`."""
    if isinstance(layers, list):
        return [_with_units(layer, units) for layer in layers]
    if isinstance(layers, dict):
        return {key: _with_units(value, units) for key, value in layers.items()}
    return units if layers == CLASSES else layers


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_DOCUMENT_BYTES + 1)
        if len(content) > MAX_DOCUMENT_BYTES:
            raise InvalidJob([f"{path}: has more than {MAX_DOCUMENT_BYTES:,} bytes, which is the limit of a job file"])
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise InvalidJob([f"{path}: no such file{_nearest_file(path)}"]) from None
    except IsADirectoryError:
        raise InvalidJob([f"{path}: is a directory, must be a job file such as {path / run_files.JOB}"]) from None
    except UnicodeDecodeError:
        raise InvalidJob([f"{path}: is not text in UTF-8, so it is not a job file"]) from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidJob([f"{path!s}: cannot be read: {reason}"]) from None


def _nearest_file(path: Path) -> str:
    try:
        names = {entry.stem: entry.name for entry in path.parent.iterdir() if entry.suffix in (".yaml", ".yml")}
    except OSError:
        return ""
    near = closest(path.stem, names)  # without the extension, which all names share
    return f"; did you mean {path.parent / names[near]}?" if near else ""


def _resolve_paths(document: dict[Any, Any], folder: Path) -> None:
    """Make the document's paths that are relative to `folder` absolute; entries that are not texts stay as they are."""
    data = document.get("data")
    if isinstance(data, dict):
        for key in ("source", "validation"):
            if isinstance(data.get(key), str):
                data[key] = resolve_source(data[key], folder)
        if (target := target_file(data)) is not None:
            data["target"] = resolve_file(target, folder, ".npy")
    for section, key, ending in (
        (data, "tokens", ".json"),
        (document.get("pipeline"), "schedule", ".csv"),
    ):
        if isinstance(section, dict) and isinstance(section.get(key), str):
            section[key] = resolve_file(section[key], folder, ending)
    model = document.get("model")
    if isinstance(model, dict) and isinstance(model.get("weights"), str) and model["weights"]:
        weights = model["weights"]
        model["weights"] = weights if is_url(weights) or "\0" in weights else resolve_path(weights, folder)
    tracking = document.get("tracking")
    if isinstance(tracking, dict):
        for key, resolve in (("tensorboard", resolve_path), ("mlflow", resolve_database)):
            if isinstance(tracking.get(key), str) and tracking[key]:
                tracking[key] = resolve(tracking[key], folder)
