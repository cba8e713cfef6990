"""Every loss with the options that matter, targets for it, and torch's values. `python -m tests.stages.losses` writes
them with torch into golden/losses.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from stages.arrays import Array
from stages.losses import Loss, LossSpec, Targets, build_loss, loss_entry

GOLDEN = Path(__file__).parent / "golden" / "losses.json"
CASES: dict[str, LossSpec] = {
    "cross_entropy": loss_entry("cross_entropy"),
    "cross_entropy, smoothed": loss_entry("cross_entropy", label_smoothing=0.1),
    "cross_entropy, smoothed to the end": loss_entry("cross_entropy", label_smoothing=1.0),
    "cross_entropy, ignoring −100": loss_entry("cross_entropy", ignore_index=-100),
    "cross_entropy, ignoring class 2, smoothed": loss_entry("cross_entropy", ignore_index=2, label_smoothing=0.25),
    "binary_cross_entropy": loss_entry("binary_cross_entropy"),
    "mse": loss_entry("mse"),
    "sum_of_squares": loss_entry("sum_of_squares"),
    "l1": loss_entry("l1"),
    "huber": loss_entry("huber"),
    "huber, delta 0.3": loss_entry("huber", delta=0.3),
}


def case(name: str, outputs: int = 4, columns: int = 9) -> tuple[Loss, Array, Targets]:
    """Return the loss, outputs (outputs, columns) of about 3 in float64, and targets for it."""
    rng, loss = np.random.default_rng(6), build_loss(CASES[name])
    f = rng.normal(size=(outputs, columns)) * 3
    if loss.takes_labels:
        labels = rng.integers(0, outputs, size=columns)
        if loss.ignore_index is not None:
            labels[[1, 4, 5]] = loss.ignore_index
        return loss, f, labels
    targets = rng.normal(size=(outputs, columns))
    return loss, f, rng.random(size=(outputs, columns)) if loss.targets_between is not None else targets


def divisor(loss: Loss, targets: Targets, outputs: int) -> int:
    """Return the number by which the summed loss of these targets is divided."""
    return loss.count(loss.n_counted(targets), outputs)


def torch_loss(spec: LossSpec) -> Any:
    """Return torch's loss for `spec`, with torch's defaults."""
    from torch import nn

    options = spec.options
    match spec.kind:
        case "cross_entropy":
            ignored = -100 if options.ignore_index is None else options.ignore_index
            return nn.CrossEntropyLoss(ignore_index=ignored, label_smoothing=options.label_smoothing)
        case "huber":
            return nn.HuberLoss(delta=options.delta)
        case "sum_of_squares":
            return nn.MSELoss(reduction="sum")
    return {"binary_cross_entropy": nn.BCEWithLogitsLoss, "mse": nn.MSELoss, "l1": nn.L1Loss}[spec.kind]()


def torch_values(name: str, precision: str = "float64") -> tuple[float, Any]:
    """Return torch's loss and its gradient (outputs, columns)."""
    import torch

    _, f, targets = case(name)
    theirs = torch.from_numpy(f.T.astype(precision)).requires_grad_()
    targets = targets if targets.dtype.kind == "i" else targets.astype(precision)
    value = torch_loss(CASES[name])(theirs, torch.from_numpy(targets.T.copy()))
    value.backward()
    return value.item(), theirs.grad.numpy().T


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    found = {name: torch_values(name) for name in CASES}
    content = {name: {"loss": loss, "gradient": gradient.tolist()} for name, (loss, gradient) in found.items()}
    GOLDEN.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
