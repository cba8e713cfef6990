"""Checks across the sections of a job, which no check of a single entry can do.

They read the user's document, not the validated job, so that their problems are reported together with the mistakes of
single entries. A check is left out if its inputs are missing or wrong themselves.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Generator, Iterator, Sequence
from typing import Any

import numpy as np

from coordinator.job.layer_entries import LayerEntry
from coordinator.job.limits import MAX_ACTIONS, MAX_LAYERS
from coordinator.job.loss_entries import LossEntry
from coordinator.job.nearest import did_you_mean
from coordinator.job.problems import Path, show
from coordinator.job.schedule_names import default_workers, fewest_micro_batches
from coordinator.job.source_names import extension, has_columns, is_text, target_file
from coordinator.texts import counted
from stages.losses import build_loss
from stages.network import LayerError, NetworkBuilder, Op, named_by, own_names, path_name
from stages.shapes import input_shape

_MOST_INPUTS = 2**31 - 1


class Facts:
    """The entries of a document that have no problem of their own."""

    def __init__(self, document: object, wrong: Collection[Path]) -> None:
        self._document = document
        self._wrong = frozenset(wrong)
        self._around = frozenset(path[:length] for path in self._wrong for length in range(len(path) + 1))

    def get(self, *path: str | int, default: Any = None) -> Any:
        """Return the value at a path; `default` if it is not given; None if it or a part of it is wrong."""
        if path in self._around or any(path[:length] in self._wrong for length in range(len(path))):
            return None
        return self._walk(path, default)

    def lacks(self, section: str, key: str) -> bool:
        """Whether the section exists and does not have the key."""
        return self.lacks_both(section, key)

    def lacks_both(self, section: str, *keys: str) -> bool:
        """Whether the section exists and has none of the keys, right or wrong."""
        given = self._walk((section,), None)
        return isinstance(given, dict) and all(given.get(key) is None for key in keys)

    def n_layers(self) -> int | None:
        """Return how many layers are listed, whether or not each of them is right; None if there is no list."""
        layers = self._walk(("model", "layers"), None)
        return len(layers) if isinstance(layers, (list, tuple)) and layers else None

    def _walk(self, path: Path, default: Any) -> Any:
        value: Any = self._document
        for part in path:
            listed = isinstance(value, (list, tuple)) and isinstance(part, int) and part < len(value)
            if not listed and not (isinstance(value, dict) and part in value):
                return default
            value = value[part]
        return value


def cross_problems(document: object, wrong: Collection[Path]) -> Iterator[str]:
    """Yield a line for each contradiction between right entries of the document. `wrong` are the paths of wrong
    ones."""
    facts = Facts(document, wrong)
    operations = yield from _model(facts)
    if facts.get("model", "weights_map") is not None and facts.lacks("model", "weights"):
        yield "model.weights_map: given without model.weights, whose paths it maps; remove it, or give model.weights"
    yield from _precision(facts)
    yield from _data(facts)
    yield from _training(facts)
    yield from _pipeline(facts, operations)


def _model(facts: Facts) -> Generator[str, None, int | None]:
    """Yield lines. Return the number of operations that the layers stand for, None if it is not known."""
    given: tuple[int, ...] | None = facts.get("model", "input")
    vocabulary = facts.get("model", "vocabulary", default=0)
    if given is not None and math.prod(given) > _MOST_INPUTS:
        yield f"model.input: got {show(given)}, must be at most {_MOST_INPUTS:,} numbers together"
        given = None
    if given is not None and vocabulary and len(given) != 1:
        yield f"model.input: got {show(given)}, with vocabulary it must be a sample's number of tokens, such as [64]"
        given = None
    layers = facts.get("model", "layers")
    if given is None and facts.lacks("model", "input") and not _gives_input(facts):
        yield "model.input: missing, must be the shape of one sample, a list of whole numbers such as [64]"
    if given is None or vocabulary is None or layers is None or not facts.n_layers():
        return None if facts.lacks("model", "input") else facts.n_layers()
    builder, value = NetworkBuilder(input_shape(tuple(given), vocabulary or 0)), 0
    try:
        for k, layer in enumerate(layers):
            entry = LayerEntry.model_validate(layer)
            if entry.is_open:  # `units: classes`: known only after the data is read
                return None
            value = builder.add(entry.spec(), (k,), (), value)
        builder.check_ties()
    except LayerError as error:
        inner = f", layer {path_name(error.path)} ({error.place})" if len(error.path) > 1 else f".{error.kind}"
        yield f"model.layers[{error.path[0]}]{inner}: {error.problem}"
        return None
    if len(builder.ops) > MAX_LAYERS:
        yield f"model.layers: they stand for {len(builder.ops):,} operations, must be at most {MAX_LAYERS:,}"
    if not any(op.layer.parameters for op in builder.ops):
        yield "model.layers: no linear layer, so there is nothing to train; add linear: {units: 10}"
    yield from _loss(facts, builder.shapes[-1].features)
    yield from _frozen(facts, builder.ops)
    return len(builder.ops)


def _frozen(facts: Facts, ops: Sequence[Op]) -> Iterator[str]:
    """Yield a line for each path of `model.freeze` that names nothing, or if nothing is left to train."""
    names = own_names(ops)
    layers = [path_name(op.path[:n]) for op in ops if op.layer.parameters for n in range(1, len(op.path) + 1)]
    frozen = set[str]()
    for k, given in enumerate(facts.get("model", "freeze", default=()) or ()):
        found = named_by(str(given), names)
        frozen.update(found)
        if found:
            continue
        tied = {name: p.tied_to for op in ops for name, p in op.parameters if p.tied_to is not None}
        hint = did_you_mean(str(given), [*layers, *names], 0.5)
        if uses := named_by(str(given), [*tied]):
            hint = f"; {uses[0]} is tied to layer {tied[uses[0]]}: freeze that"
        yield f"model.freeze[{k}]: got {show(given)}, must be the path of a layer or parameter with weights{hint}"
    if names and frozen.issuperset(names):
        yield "model.freeze: it names every parameter, so there is nothing to train; leave some out"


def _gives_input(facts: Facts) -> bool:
    """Whether the shape of a sample follows from the data."""
    source = facts.get("data", "source", default="") or ""
    return is_text(source, facts.get("data", "block")) or has_columns(source)


def _loss(facts: Facts, outputs: int) -> Iterator[str]:
    given = facts.get("model", "loss")
    if given is None:
        return
    loss = LossEntry.model_validate(given).spec()
    if outputs < build_loss(loss).least_outputs:
        yield f"model.loss: got {loss.kind!r}, needs at least 2 outputs (one a class), but the last layer gives 1"


def _precision(facts: Facts) -> Iterator[str]:
    delta, precision = facts.get("model", "loss", "huber", "delta"), facts.get("precision", default="float32")
    if delta is not None and precision == "float32" and np.float32(min(delta, 1.0)) == 0:
        yield f"model.loss.huber.delta: got {show(delta)}, which is 0 in float32, so that nothing would be learned"


def _data(facts: Facts) -> Iterator[str]:
    source, loss = facts.get("data", "source"), facts.get("model", "loss")
    if source is not None and loss is not None and is_text(source, facts.get("data", "block")):
        kind = LossEntry.model_validate(loss).kind
        if not build_loss(kind).takes_labels:
            yield f"model.loss: got {kind!r}, but tokens of text are labels, must be cross_entropy"
    yield from _target(facts)
    yield from _classes(facts)
    yield from _columns(facts)


def _target(facts: Facts) -> Iterator[str]:
    """Yield a line if the target fits the source neither as columns of a table nor as the second file of a pair."""
    source, target, block = (facts.get("data", key) for key in ("source", "target", "block"))
    pair = source is not None and extension(source) == ".npy" and not is_text(source, block)
    named = target_file({"source": source, "target": target})
    if pair and facts.lacks("data", "target"):
        yield f"data.target: missing, must be the .npy file with the targets of {show(source)}; tokens need data.block"
    elif pair and target is not None and (named is None or extension(named) != ".npy"):
        yield f"data.target: got {show(target)}, must be the .npy file with the targets of {show(source)}"
    elif not pair and source is not None and target is not None and not has_columns(source, block):
        yield f"data.target: got {show(target)}, but only tables have columns; remove it for {show(source)}"


def _classes(facts: Facts) -> Iterator[str]:
    """Yield a line if the last layer has an output for each class, but the loss takes numbers."""
    layers, loss = facts.get("model", "layers"), facts.get("model", "loss")
    source = facts.get("data", "source", default="") or ""
    if (
        loss is None
        or not isinstance(layers, (list, tuple))
        or not layers
        or is_text(source, facts.get("data", "block"))
    ):
        return  # a loss that does not fit text has a line of its own
    kind, last = LossEntry.model_validate(loss).kind, LayerEntry.model_validate(layers[-1])
    if last.is_open and not build_loss(kind).takes_labels:
        right = "1, an output for the second of two classes" if kind == "binary_cross_entropy" else "a whole number"
        yield (
            f"model.layers[{len(layers) - 1}].linear.units: got 'classes', but {kind} takes numbers, must be {right}; "
            "or write loss: cross_entropy"
        )


def _columns(facts: Facts) -> Iterator[str]:
    source = facts.get("data", "source")
    if source is not None and not has_columns(source, facts.get("data", "block")):
        for key in ("columns", "group", "missing"):
            if (given := facts.get("data", key)) is not None:
                yield f"data.{key}: got {show(given)}, but {show(source)} has no named columns; remove it"
    if facts.get("data", "group") is not None and facts.get("data", "stratified") is True:
        yield "data.stratified: got true, but data.group is given too, which decides by groups; remove one"
    if source is not None and facts.get("data", "stratified") is True and is_text(source, facts.get("data", "block")):
        yield "data.stratified: got true, but text has no classes; remove it"
    columns = facts.get("data", "columns")
    for name, given in columns.items() if isinstance(columns, dict) else ():
        if not isinstance(given, dict) or given.get("kind") not in ("category", "drop", "key"):
            continue
        kind, missing, scale = given["kind"], given.get("missing"), given.get("scale")
        path = f"data.columns.{name}"
        if kind == "category" and missing in ("mean", "median"):
            yield f"{path}.missing: got '{missing}', but a category has none, must be error, drop or most_frequent"
        if scale is not None and scale != "none":
            yield f"{path}.scale: got '{scale}', but only numbers are scaled; remove it, or write kind: number"


def _training(facts: Facts) -> Iterator[str]:
    batch, parts = facts.get("training", "batch_size"), facts.get("training", "micro_batches", default=1)
    if batch is not None and parts is not None and parts > batch:
        yield f"training.micro_batches: got {parts}, must be at most {batch}, the rows of training.batch_size"
    stages = facts.get("pipeline", "stages", default=1)
    if parts is not None and isinstance(stages, int) and parts * stages > MAX_ACTIONS:
        yield (
            f"training.micro_batches: got {parts:,} in {stages:,} stages, which makes {parts * stages:,} forward "
            f"passes a step, must be at most {MAX_ACTIONS:,}"
        )
    epochs, steps = facts.get("training", "epochs"), facts.get("training", "steps")
    if epochs is not None and steps is not None:
        yield f"training.steps: got {show(steps)}, but epochs is given too; remove one"
    if facts.lacks_both("training", "epochs", "steps"):
        yield "training.epochs: missing, must be a whole number, at least 1; or give steps"
    sgd = ("training", "optimizer", "sgd")
    if facts.get(*sgd, "nesterov") is True and facts.get(*sgd, "momentum", default=0) == 0:
        yield "training.optimizer.sgd.nesterov: got true, needs momentum above 0; write momentum: 0.9"


def _pipeline(facts: Facts, n_layers: int | None) -> Iterator[str]:
    what = "the number of model.layers"
    if n_layers is not None and n_layers != facts.n_layers():
        what = "the number of operations that model.layers stand for"
    partition = facts.get("pipeline", "partition", default="auto")
    given = partition if isinstance(partition, (list, tuple)) else None
    stages = facts.get("pipeline", "stages", default=1 if given is None else len(given))
    workers = facts.get("pipeline", "workers")
    if stages == "auto":
        yield from _follows_cluster(facts, n_layers, what)
        return
    if stages is not None and n_layers is not None and stages > n_layers:
        yield f"pipeline.stages: got {stages}, must be at most {n_layers}, {what}"
    again = facts.get("pipeline", "recompute", default="none")
    if stages is not None and isinstance(again, (list, tuple)) and any(s >= stages for s in again):
        yield f"pipeline.recompute: got {show(again)}, must be stages from 0 to {stages - 1}"
    if stages is not None and workers is not None and workers > stages:
        yield f"pipeline.workers: got {workers}, must be at most {stages}, the number of pipeline.stages"
    elif stages is not None:
        yield from _too_few_micro_batches(facts, stages, workers)
    if given is not None and stages is not None and len(given) != stages:
        yield f"pipeline.partition: got {show(given)}, must have {stages} entries, one for each of pipeline.stages"
    if given is not None and n_layers is not None and sum(given) != n_layers:
        yield f"pipeline.partition: got {show(given)}, must sum to {n_layers}, {what}"


def _too_few_micro_batches(facts: Facts, stages: int, workers: int | None) -> Iterator[str]:
    schedule, parts = (
        facts.get("pipeline", "schedule", default="1f1b"),
        facts.get("training", "micro_batches", default=1),
    )
    if schedule is None or parts is None:
        return
    n_workers = default_workers(schedule, stages) if workers is None else workers
    fewest = fewest_micro_batches(schedule, n_workers)
    if parts < fewest:
        yield (
            f"training.micro_batches: got {parts}, must be at least {fewest} for {schedule}, two for each of "
            f"{counted(n_workers, 'worker')}"
        )


def _follows_cluster(facts: Facts, n_layers: int | None, what: str) -> Iterator[str]:
    """Yield a line for each entry that needs a number of stages, which `stages: auto` does not give."""
    for key in ("partition", "recompute"):
        given = facts.get("pipeline", key)
        if isinstance(given, (list, tuple)):
            yield f"pipeline.{key}: got {show(given)}, but pipeline.stages is auto; write auto, or a number of stages"
    schedule, workers = facts.get("pipeline", "schedule"), facts.get("pipeline", "workers")
    if isinstance(schedule, str) and schedule.lower().endswith(".csv"):
        yield f"pipeline.stages: got 'auto', must be the number of stages in {schedule}"
    if workers is not None and n_layers is not None and workers > n_layers:
        yield f"pipeline.workers: got {workers}, must be at most {n_layers}, {what}"
