"""Changes to a job's document from the command line: `--set a.b=c`, `--stages 2`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from coordinator.job.problems import path_text, show
from coordinator.job.sections import PipelineSection
from coordinator.job.yaml_text import read_yaml


def apply_override(document: dict[Any, Any], override: str) -> Iterator[str]:
    """Set the path left of `=` to the YAML right of it, in place. Yield the problems of the override itself."""
    key, equals, text = override.partition("=")
    path = parse_path(key.strip())
    if not equals or path is None:
        yield f"--set {show(override)}: must be path=value, such as training.epochs=3 or model.layers[0]=relu"
        return
    value, problems = read_yaml(text)
    if problems:
        yield from (f"--set {show(override)}: {line}" for line in problems)
        return
    yield from _assign(document, path, value, f"--set {show(override)}")


def apply_replacement(document: dict[Any, Any], key: str, value: object) -> Iterator[str]:
    """Set `stages` (an entry of `pipeline`) or `training__epochs` (any path) in place; None changes nothing. Yield the
    problems."""
    if value is None:
        return
    path: tuple[str | int, ...] = tuple(key.split("__"))
    if path[0] in PipelineSection.model_fields:
        path = ("pipeline", *path)
    yield from _assign(document, path, value, path_text(path))


def parse_path(text: str) -> tuple[str | int, ...] | None:
    """`model.layers[2].linear` (or `model.layers.2.linear`) as its parts; None if it is not a path."""
    if not re.fullmatch(r"[\w-]+(\[\d{1,6}\])*(\.[\w-]+(\[\d{1,6}\])*)*", text, flags=re.ASCII):
        return None
    parts = re.findall(r"[\w-]+", text, flags=re.ASCII)
    return tuple(int(part) if part.isdigit() and len(part) < 7 else part for part in parts)


def _assign(document: dict[Any, Any], path: tuple[str | int, ...], value: object, source: str) -> Iterator[str]:
    here: Any = document
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(here, dict):
            if last:
                here[part] = value
            elif here.get(part) is None:
                here[part] = {}
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            if last:
                here[part] = value
        else:
            size = f" with {len(here)} entries" if isinstance(here, list) else ""
            kind = "a list" if isinstance(here, list) else show(here)
            yield f"{source}: {path_text(path[:depth])} is {kind}{size}, which has no {path_text((part,))}"
            return
        if not last:
            here = here[part]
