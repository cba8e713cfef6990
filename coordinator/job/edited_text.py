"""Changes entries in the text of a job file, and leaves its comments, its order and everything else as they are.

    edited("pipeline:\n  stages: 1   # a comment\n", {"pipeline.stages": 2})

It can only do simple changes, and returns None for others: the caller compares what it reads from the new text with
what it wants.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

from coordinator.job.yaml_text import nodes_of


class _Edit(NamedTuple):
    """Replaces `text[start:stop]`."""

    start: int
    stop: int
    text: str


def edited(text: str, entries: Mapping[str, Any]) -> str | None:
    """Return the text with the values of `section.name` paths set; None if that is not simple."""
    root = nodes_of(text)
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        return None
    by_section: dict[str, dict[str, Any]] = {}
    for path, value in entries.items():
        section, _, name = path.partition(".")
        by_section.setdefault(section, {})[name] = value
    edits, added = list[_Edit](), ""
    for section, values in by_section.items():
        node = _value_of(root, section)
        if node is None:
            added += f"{section}:\n" + "".join(f"  {name}: {_flow(value)}\n" for name, value in values.items())
        elif isinstance(node, yaml.MappingNode) and node.value:
            found = _edits(text, node, values)
            if found is None:
                return None
            edits += found
        elif isinstance(node, yaml.ScalarNode) and node.style not in ("|", ">") and node.value:
            edits.append(_Edit(node.start_mark.index, node.end_mark.index, _flow(values)))
        else:
            return None
    for edit in sorted(edits, reverse=True):
        text = text[: edit.start] + edit.text + text[edit.stop :]
    return text + ("\n" if added and text and not text.endswith("\n") else "") + added


def _edits(text: str, section: yaml.MappingNode, values: Mapping[str, Any]) -> list[_Edit] | None:
    edits, new = list[_Edit](), list[str]()
    for name, value in values.items():
        node = _value_of(section, name)
        if node is None:
            new.append(f"{name}: {_flow(value)}")
        elif (isinstance(node, yaml.ScalarNode) and node.style not in ("|", ">") and node.value) or _is_flow(node):
            edits.append(_Edit(node.start_mark.index, node.end_mark.index, _flow(value)))
        else:
            return None
    if not new:
        return edits
    last = section.value[-1][1]
    if section.flow_style:
        edits.append(_Edit(last.end_mark.index, last.end_mark.index, "".join(f", {entry}" for entry in new)))
        return edits
    if not isinstance(last, yaml.ScalarNode) and not _is_flow(last):
        return None
    line_end = text.find("\n", last.end_mark.index)
    line_end = len(text) if line_end < 0 else line_end
    indent = " " * section.value[0][0].start_mark.column
    edits.append(_Edit(line_end, line_end, "".join(f"\n{indent}{entry}" for entry in new)))
    return edits


def _value_of(mapping: yaml.MappingNode, name: str) -> yaml.Node | None:
    return next((value for key, value in mapping.value if key.value == name), None)


def _is_flow(node: yaml.Node) -> bool:
    return isinstance(node, yaml.CollectionNode) and bool(node.flow_style)


def _flow(value: object) -> str:
    """Return a value as YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return value if isinstance(value, str) and value.replace("-", "").isalnum() else json.dumps(value)
