"""What each column of a table is for: an input, the target, the key of a row, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.data.files import Table
from cluster.data.tables.names import require_columns
from coordinator.job.data_section import DataSection
from stages.errors import InvalidData

TARGET_NAMES = ("y", "target", "label", "class")
"""A column of one of these names is the target if `data.target` is not given."""

_NO_USE = ("drop", "key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """The columns by what they are for. `left_out` has the other columns, each with the reason."""

    inputs: tuple[str, ...]
    target: tuple[str, ...]
    key: str | None = None
    group: str | None = None
    left_out: tuple[tuple[str, str], ...] = ()


def assign_roles(table: Table, data: DataSection, source: str) -> Roles:
    """Return the roles of a training file's columns. Raises InvalidData if the target is not clear, a name is unknown,
    or no input is left."""
    named = [*(data.target or ()), *data.columns, *([data.group] if data.group else [])]
    require_columns(table, named, source)
    kinds = {name: data.column(name).kind for name in table.columns}
    left_out = [(name, "data.columns says so") for name, kind in kinds.items() if kind == "drop"]
    index = [name for name in table.index if kinds[name] is None and name not in named]
    left_out += [(name, "it is an index") for name in index]
    keys = [name for name, kind in kinds.items() if kind == "key"] or index[:1]
    target = data.target or _default_target(table, kinds, index, source)
    _require_clear(target, keys, kinds, source)
    left_out += [(name, "it is the key of a row") for name in keys if kinds[name] == "key"]
    out = {*target, *keys, *(name for name, _ in left_out)}
    if data.group is not None and kinds[data.group] is None and data.group not in out:
        left_out.append((data.group, "it is the group"))
        out.add(data.group)
    inputs = tuple(name for name in table.columns if name not in out)
    if not inputs:
        raise InvalidData(f"{source}: no column is left for the inputs; the target takes {', '.join(target)}")
    return Roles(
        inputs=inputs, target=target, key=keys[0] if keys else None, group=data.group, left_out=tuple(left_out)
    )


def _require_clear(target: Sequence[str], keys: list[str], kinds: Mapping[str, str | None], source: str) -> None:
    """Raise InvalidData if columns have two roles, or there are two keys."""
    lines = [
        f"data.columns.{name} is {kinds[name]}, but it is the target"
        for name in sorted({*target})
        if kinds[name] in _NO_USE
    ]
    if twice := sorted({name for name in target if target.count(name) > 1}):
        lines.append(f"data.target names {', '.join(twice)} twice")
    if len(keys) > 1:
        lines.append(f"data.columns has several keys ({', '.join(keys)}); a row has one")
    if lines:
        raise InvalidData("\n".join(f"{source}: {line}" for line in lines))


def _default_target(table: Table, kinds: Mapping[str, str | None], index: list[str], source: str) -> tuple[str, ...]:
    names = [name for name in table.columns if kinds[name] not in ("drop", "key") and name not in index]
    found = [name for name in names if name.lower() in TARGET_NAMES]
    if len(found) == 1:
        return (found[0],)
    names_known = f"{', '.join(TARGET_NAMES[:-1])} or {TARGET_NAMES[-1]}"
    why = f"several columns may be the target ({', '.join(found)})" if found else f"no column is called {names_known}"
    shown = ", ".join(names[:20]) + (f" … ({len(names):,} columns)" if len(names) > 20 else "")
    raise InvalidData(f"{source}: {why}; name the column to predict, as in data.target: NAME, of: {shown}")
