"""Find the line of a problem in a job file: problems name a path in the document, and people look for a line.

place_problems("training:\n  epochs: 0\n", ["training.epochs: got 0, must be …"])  # [Problem(2, "training.epochs: …")]
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import yaml

from coordinator.job.problems import path_text
from coordinator.job.yaml_text import nodes_of

_SYNTAX = re.compile(r"line (\d+)(?:, column \d+)?: (.*)", re.DOTALL)
_TWICE = re.compile(r".*: given twice, in lines \d+ and (\d+)")


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem and its line in the file, from 1; None if it concerns the whole file. `text` says what is wrong and
    what is allowed."""

    line: int | None
    text: str

    def __str__(self) -> str:
        return self.text if self.line is None else f"line {self.line}: {self.text}"


def place_problems(text: str, problems: Sequence[str]) -> list[Problem]:
    """Return each problem with the line of its path, else of the nearest section around it, in order of lines."""
    known = all(_SYNTAX.fullmatch(problem) or _TWICE.match(problem) for problem in problems)
    lines = {} if known else _lines_of_paths(text)
    found = [_place(problem, lines) for problem in problems]
    return sorted(found, key=lambda problem: (problem.text.startswith("and "), problem.line or 0))


def _place(problem: str, lines: dict[str, int]) -> Problem:
    if syntax := _SYNTAX.fullmatch(problem):
        return Problem(int(syntax[1]), syntax[2])
    if twice := _TWICE.match(problem):
        return Problem(int(twice[1]), problem)
    path = problem.partition(": ")[0]
    while path:
        if path in lines:
            return Problem(lines[path], problem)
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return Problem(None, problem)


def _lines_of_paths(text: str) -> dict[str, int]:
    """Return the line of every path; empty if the text is no YAML."""
    node = nodes_of(text)
    return {} if node is None else dict(_walk(node, (), set()))


def _walk(node: yaml.Node, path: tuple[str | int, ...], seen: set[int]) -> Iterator[tuple[str, int]]:
    if id(node) in seen:  # an alias: following it may never end, or take very long
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                inner = (*path, key.value)
                yield path_text(inner), key.start_mark.line + 1
                yield from _walk(value, inner, seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, entry in enumerate(node.value):
            yield path_text((*path, index)), entry.start_mark.line + 1
            yield from _walk(entry, (*path, index), seen)
