"""What may change when a run goes on from a checkpoint, and what may not.

[Note: what may change] The bits of a run depend on its model, its data, its seed, its precision, its batches and its
optimizer. How the work is divided (stages, schedule, workers, cut, recomputation) and how long it goes on may change;
so may the rate, whose schedule is then used as if it had been planned so from the beginning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coordinator.job.problems import show

FIXED: Mapping[str, str] = {
    "seed": "it decides the order of the rows",
    "precision": "the saved numbers have it",
    "model": "the saved weights are of this model",
    "data": "the run must go on with the same rows",
    "training.batch_size": "it decides which rows a step has",
    "training.micro_batches": "another number adds gradients in another order",
    "training.optimizer": "the saved vectors belong to it; its learning_rate may change",
    "training.clip_norm": "it changes every update",
    "pipeline.weight_grad_group": "another number adds gradients in another order",
}
"""The entries that may not change, each with the reason."""
AUTO_REFUSED = (
    "pipeline: got auto, which chooses micro-batches and groups of weight gradients, but a run that goes on keeps its "
    "own; leave it out, or set pipeline.stages and pipeline.schedule"
)
"""Why a run does not go on with `pipeline: auto`."""
_CHOSEN_BY_AUTO = ("training.micro_batches", "pipeline.weight_grad_group")
_MAY_CHANGE_INSIDE = ("learning_rate",)


def changes_refused(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return a line for each entry of the job `now` that may not differ from the checkpoint's job `before`."""
    is_auto = now.get("pipeline") == "auto"
    lines = [AUTO_REFUSED] if is_auto else []
    for entry, why in FIXED.items():
        old, new = _at(before, entry), _at(now, entry)
        if is_auto and new is None and entry in _CHOSEN_BY_AUTO:
            continue
        lines += [
            f"{path}: got {show(b)}, but the checkpoint has {show(a)}, and this may not change: {why}"
            for path, a, b in _differences(entry, old, new)
        ]
    return lines


def _at(document: Mapping[str, Any], entry: str) -> Any:
    value: Any = document
    for key in entry.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _differences(path: str, old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            found
            for key in dict.fromkeys([*old, *new])
            if key not in _MAY_CHANGE_INSIDE
            for found in _differences(f"{path}.{key}", old.get(key), new.get(key))
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [found for i, (a, b) in pairs for found in _differences(f"{path}[{i}]", a, b)]
    return [] if old == new else [(path, old, new)]
