"""Programs as the text of test files."""

from __future__ import annotations

from textwrap import dedent

from stages.actions import Action, Program


def program(text: str, *, n_stages: int, n_micro_batches: int) -> Program:
    """Return a program from lanes written as words, a line a worker. Nothing is checked."""
    lanes = tuple(tuple(map(Action.parse, line.split())) for line in block(text).splitlines())
    return Program("drawn", n_stages, n_micro_batches, lanes)


def lanes(made: Program) -> str:
    """Return a program's lanes as `program` reads them."""
    return "\n".join(" ".join(map(str, lane)) for lane in made.lanes)


def block(text: str) -> str:
    """Return an indented text block without its indent and the empty lines around it."""
    return dedent(text).strip("\n")
