"""The text of a suggested job file, with a comment for each guess."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.data.suggesting import NetworkSize, Suggestion, plain, plain_path, size_for
from coordinator.texts import counted

_MOST_ENTRIES = 200
_SHARE = 0.2


def table_job(found: Suggestion, source: str) -> str:
    """Return the job file for a table in the file `source`."""
    size = size_for(found.rows)
    outputs = "classes" if found.classes is not None else str(len(found.target))
    loss = (
        "cross_entropy             # for classes"
        if found.classes is not None
        else "mse                       # for numbers"
    )
    target = plain(found.target[0]) if len(found.target) == 1 else f"[{', '.join(map(plain, found.target))}]"
    lines = [
        f"# For {counted(len(found.inputs), 'column')} of inputs and {counted(found.rows, 'row')}.",
        *_model([], size, outputs, loss),
        "data:",
        f"  source: {plain_path(source)}",
        f"{f'  target: {target}':<33} # {found.why_target}",
    ]
    if found.entries:
        lines.append("  columns:")
        lines += [f"{f'    {plain(name)}: {entry}':<33} # {_comment(why)}" for name, entry, why in found.entries]
    lines += [f"  validation: {_validation(found.rows)}", *_training(size)]
    return "\n".join([*lines, ""])


def arrays_job(source: str, rows: int, inputs: int, outputs: int, *, classes: bool) -> str:
    """Return the job file for arrays in the file `source`: `inputs` numbers a row, and for `classes` their number as
    `outputs`."""
    about = f"# For {counted(rows, 'row')} of arrays, which are not scaled: values from about −3 to 3 train best."
    return _of_arrays(about, source, [f"  input: [{inputs}]"], rows, str(outputs), classes=classes)


def images_job(source: str, rows: int) -> str:
    """Return the job file for a folder of images by class."""
    return _of_arrays(f"# For {counted(rows, 'image')}, pixel by pixel.", source, [], rows, "classes", classes=True)


def _of_arrays(about: str, source: str, first: Sequence[str], rows: int, outputs: str, *, classes: bool) -> str:
    size = size_for(rows)
    loss = "cross_entropy             # for classes" if classes else "mse                       # for numbers"
    lines = [
        about,
        *_model(first, size, outputs, loss),
        f"data: {{source: {plain_path(source)}, validation: {_share(rows)}}}",
        *_training(size),
    ]
    return "\n".join([*lines, ""])


def text_job(source: str) -> str:
    """Return the job file for a text, which a small transformer learns character by character."""
    return f"""\
model:
  layers:
    - embedding: {{units: 64}}
    - positions
    - transformer: {{heads: 4, times: 2}}
    - layer_norm
    - linear: {{units: classes}}
  loss: cross_entropy
data:
  source: {plain_path(source)}
  tokens: characters
  block: 64
  windows: random
  validation: 0.1
training:
  steps: 1000
  batch_size: 16
  evaluate_every: 250
  optimizer: {{adamw: {{learning_rate: 0.001}}}}
  clip_norm: 1.0
"""


def _model(first: Sequence[str], size: NetworkSize, outputs: str, loss: str) -> list[str]:
    layers = "".join(f"linear: {{units: {units}}}, relu, " for units in size.units)
    return ["model:", *first, f"  layers: [{layers}linear: {{units: {outputs}}}]", f"  loss: {loss}"]


def _training(size: NetworkSize) -> list[str]:
    return [
        "training:",
        f"  epochs: {size.epochs}",
        f"  batch_size: {size.batch_size}",
        f"  optimizer: {{adamw: {{learning_rate: {size.learning_rate}, weight_decay: {size.weight_decay}}}}}",
        "  schedule: cosine                # the learning rate falls to 0 at the end",
    ]


def _validation(rows: int) -> str:
    share = _share(rows)
    why = "too few rows to keep one back" if share == "none" else "of the rows, to measure how good the network is"
    return f"{share:<19} # {why}"


def _share(rows: int) -> str:
    """Return the share of the rows for validation; none if not even one row would be."""
    return str(_SHARE) if 0 < round(_SHARE * rows) < rows else "none"


def _comment(text: str) -> str:
    return " ".join(text.split())[:80]
