"""Turns pydantic's errors into lines that help a user: the path in the file, the value, and what would be right.

training.optimizer.sgd.learning_rate: got -0.1, must be a number above 0
model.layers[2].linear.unit: got 10, unknown key; did you mean units?
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from coordinator.job.layer_entries import LAYER_KINDS, LayerEntry
from coordinator.job.limits import MAX_PROBLEMS
from coordinator.job.loss_entries import LOSS_KINDS, LossEntry
from coordinator.job.nearest import did_you_mean
from coordinator.job.sections import PipelineSection
from stages.layers import REFUSED

Path = tuple[str | int, ...]

_KINDS: dict[type[BaseModel], Sequence[str]] = {LayerEntry: LAYER_KINDS, LossEntry: LOSS_KINDS}
"""The names that entries with one of several kinds may have."""
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxtuple, _SHORT.maxdict = 3, 8, 8, 6
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


def show(value: object) -> str:
    """Return a value as a short text on one line, written as in YAML if that differs from Python."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    if isinstance(value, tuple):
        value = list(value)
    try:
        return re.sub(r"\s+", " ", _SHORT.repr(value))
    except ValueError:  # an integer with thousands of digits
        return "a number with too many digits"


def path_text(path: Sequence[str | int]) -> str:
    """`("model", "layers", 2, "linear")` as `model.layers[2].linear`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if re.fullmatch(r"[\w-]+", part) else _SHORT.repr(part)
            text += f".{name}" if text else name
    return text or "the job file"


def problems_of(error: ValidationError, root: type[BaseModel]) -> list[tuple[Path, str]]:
    """Return each mistake once, as its path (the root is empty) and its line, in the order of the model's fields."""
    found: dict[str, Path] = {}
    for detail in error.errors(include_url=False):
        if len(found) > MAX_PROBLEMS:  # each line searches for the nearest right word, and nobody reads so many
            found[f"one more, {len(found)}"] = detail["loc"]
            continue
        if detail["type"] == "too_short" and detail["input"]:  # pydantic counts right entries; wrong ones have lines
            continue
        path, line = _problem(detail["loc"], detail["type"], detail["input"], detail.get("ctx", {}), root)
        found.setdefault(line, path)
    return [(path, line) for line, path in found.items()]


def _problem(loc: Path, kind: str, value: object, context: dict[str, Any], root: type[BaseModel]) -> tuple[Path, str]:
    owner, field, path = _find(loc, root)
    where = path_text(path)
    if kind == "extra_forbidden" and owner in _KINDS:
        got = f"{path_text(path[:-1])}: got {show(path[-1])}, "
        refused = REFUSED.get(_plain_name(path[-1])) if owner is LayerEntry else None
        right = f"must be {_section_text(owner)}{did_you_mean(path[-1], _KINDS[owner])}"
        return path[:-1], got + (refused or right)
    if kind == "extra_forbidden":
        return path, f"{where}: {_unknown_key(path[-1], value, owner)}"
    if kind == "invalid_key":
        return path, f"{path_text(path[:-1])}: got the key {show(value)}, keys must be text"
    right = _section_text(owner) if field is None else field.description or "something else"
    if kind == "missing":
        return path, f"{where}: missing, must be {right}"
    hint = str(context.get("error") or "")
    choices = _choices(field) if field is not None else _KINDS.get(owner, ())
    hint = f"; {hint}" if hint else did_you_mean(value, choices)
    return path, f"{where}: got {show(value)}, must be {right}{hint}"


def _unknown_key(key: str | int, value: object, owner: type[BaseModel]) -> str:
    known = tuple(owner.model_fields)
    near = did_you_mean(key, known)
    if not near:
        near = f"; known here: {', '.join(known)}" if known else "; there is nothing to set here"
    return f"got {show(value)}, unknown key{near}"


def _find(loc: Path, root: type[BaseModel]) -> tuple[type[BaseModel], FieldInfo | None, Path]:
    """Return the innermost section on the way, the leaf's field (None for a section or an unknown key), and the path in
    the file.

    Pydantic adds members of a union after a leaf; they are not in the file and are left out.
    """
    owner, field, path = root, None, list[str | int]()
    here: object = root
    for part in loc:
        if get_origin(here) is dict:
            path.append(part)
            field, here = None, get_args(here)[1]
        elif (section := _section(here)) is not None:
            path.append(part)
            owner, field = section, section.model_fields.get(str(part))
            if field is None:
                return owner, None, tuple(path)
            here = _without_none(field.annotation)
        elif get_origin(here) is tuple and isinstance(part, int):
            path.append(part)
            here = get_args(here)[0]
        else:
            break
    section = _section(here)
    return (owner, field, tuple(path)) if section is None else (section, None, tuple(path))


def _without_none(annotation: object) -> object:
    """Return X for the annotation `X | None` if X is a list; else the annotation itself."""
    inner = [a for a in get_args(annotation) if a is not type(None)]
    listed = len(inner) == 1 and get_origin(inner[0]) is tuple and len(get_args(annotation)) == 2
    return inner[0] if listed and get_origin(annotation) is not tuple else annotation


def _section(annotation: object) -> type[BaseModel] | None:
    """Return the section that `M` or `M | None` names; None for a leaf or a list."""
    for candidate in (annotation, *(get_args(annotation) if get_origin(annotation) not in (tuple, dict) else ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _section_text(owner: type[BaseModel]) -> str:
    if owner in _KINDS:
        return f"{'one kind of layer: ' if owner is LayerEntry else ''}{_either(_KINDS[owner])}"
    keys = ", ".join(owner.model_fields)
    other = ", or auto" if owner is PipelineSection else ""
    return f"a section with {keys}{other}" if keys else "empty: there is nothing to set"


def _plain_name(key: str | int) -> str:
    """Return `BatchNorm1d` and `batch_norm` as `batchnorm`."""
    return re.sub(r"\dd$|[^a-z]", "", str(key).lower())


def _choices(field: FieldInfo) -> Sequence[str]:
    for annotation in (field.annotation, *get_args(field.annotation)):
        if get_origin(annotation) is Literal:
            return get_args(annotation)
    extra = field.json_schema_extra
    return list(_texts(extra.get("choices"))) if isinstance(extra, dict) else ()


def _texts(values: object) -> Iterator[str]:
    if isinstance(values, list):
        yield from (value for value in values if isinstance(value, str))


def _either(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"
