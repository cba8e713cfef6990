"""A job file for a table or arrays, that trains without edits: target, columns, network, training.

Every guess is a line with its reason, in the job file's comments and for the user.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.data.describing import ColumnFacts
from cluster.data.tables.roles import TARGET_NAMES
from coordinator.job.nearest import did_you_mean
from coordinator.texts import some
from stages.errors import UserMistake

_MOST_CATEGORIES = 64
_MOST_CLASSES = 20
_NO_INPUT = ("drop", "key")
_ROW_NUMBERS = re.compile(r"(?:.*[^a-z])?(?:id|index|idx|row|rowid|row_number|nr|no|number)|unnamed.*|__index.*|")
_PLAIN = re.compile(r"[^\W\d]\w*\Z")
_PATH = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./-]*\Z")
_WORDS = ("true", "false", "null", "nan", "inf", "y", "n", "yes", "no", "on", "off")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """What to train on a table. `why_target` says how the target was found; `classes` is None for numbers.

    `entries` has the columns that need an entry in `data.columns`, each with the reason; `left_out` those among them
    that are not used.
    """

    target: tuple[str, ...]
    why_target: str
    classes: int | None
    inputs: tuple[str, ...]
    entries: tuple[tuple[str, str, str], ...]
    rows: int

    @property
    def left_out(self) -> list[tuple[str, str]]:
        """The columns that are not used, each with the reason."""
        return [(name, why) for name, entry, why in self.entries if entry in _NO_INPUT]


def suggest(columns: Sequence[ColumnFacts], index: Sequence[str], targets: Sequence[str], source: str) -> Suggestion:
    """Return the suggestion. `index`: columns that are left out in any case. `targets`: given by the user; empty if the
    target must be guessed. Raises UserMistake if a name is unknown or nothing can be trained."""
    known = {column.name: column for column in columns}
    for name in targets:
        if name not in known:
            raise UserMistake(f"--target: {source} has no column {name!r}{did_you_mean(name, list(known))}")
    entries = [(c.name, *_entry(c)) for c in columns if c.name not in targets and c.name not in index]
    key = next((name for name, entry, _ in entries if entry == "key"), None)
    entries = [(n, "drop", why) if e == "key" and (n != key or index) else (n, e, why) for n, e, why in entries]
    usable = [known[name] for name, entry, _ in entries if entry not in _NO_INPUT]
    target, why = (
        (tuple(targets), "by --target")
        if targets
        else _guess([known[name] for name, entry, _ in entries if entry != "key"], usable, source)
    )
    entries = [one for one in entries if one[0] not in target]
    inputs = [known[name] for name, entry, _ in entries if entry not in _NO_INPUT]
    if not inputs:
        raise UserMistake(f"{source}: no column is left for the inputs; the target takes {some(target)}")
    if bad := [name for name in target if not known[name].filled or known[name].type in ("date", "other")]:
        raise UserMistake(f"{source}: {bad[0]!r} cannot be predicted: {known[bad[0]].type}, {known[bad[0]].summary}")
    classes = known[target[0]].different if len(target) == 1 and has_classes(known[target[0]]) else None
    if texts := [name for name in target if classes is None and not known[name].is_number]:
        raise UserMistake(f"{source}: {texts[0]!r} is text, and only one target may have classes; give it alone")
    gaps = [(name, "{missing: drop}", "no target") for name in target if known[name].empty]
    return Suggestion(
        target=target,
        why_target=why,
        classes=classes,
        inputs=tuple(column.name for column in inputs),
        entries=tuple(one for one in [*gaps, *entries] if one[1]),
        rows=columns[0].rows - max(known[name].empty for name in target),
    )


def has_classes(column: ColumnFacts) -> bool:
    """Whether a target's values are classes: texts, yes and no, or few whole numbers that occur often."""
    if column.type == "whole number":
        yes_or_no = (column.low, column.high) == (0, 1)
        return yes_or_no or column.different <= min(_MOST_CLASSES, column.filled / 5)
    return column.type in ("text", "yes or no")


def _guess(columns: Sequence[ColumnFacts], usable: Sequence[ColumnFacts], source: str) -> tuple[tuple[str, ...], str]:
    """Return the target and the reason. Many files have it last, and some first."""
    if not usable:
        raise UserMistake(f"{source}: has no column that can be trained on")
    named = [column for column in usable if column.name.lower() in TARGET_NAMES]
    if len(named) == 1:
        return (named[0].name,), "by its name"
    ends = [column for column in (columns[-1], columns[0]) if column in usable and not column.empty]
    texts = [column for column in ends if column.type == "text"]
    few = [column for column in ends if has_classes(column)]
    chosen = (texts or few or [usable[-1]])[0]
    return (chosen.name,), "a guess: name another one by --target"


def _entry(column: ColumnFacts) -> tuple[str, str]:
    """Return a column's entry in `data.columns` and the reason; empty if it needs none."""
    if not column.filled:
        return "drop", "empty"
    if column.type in ("date", "other"):
        return "drop", "a date" if column.type == "date" else "neither numbers nor text"
    if column.different == 1:
        return "drop", f"the same in every row: {column.values[0][0] if column.values else column.summary}"
    if column.is_number:
        consecutive = column.different == column.rows and column.high == (column.low or 0) + column.rows - 1
        if consecutive and _ROW_NUMBERS.fullmatch(column.name.lower()):
            return "key", "numbers of rows"
        return ("{missing: median}", f"{column.empty:,} empty") if column.empty else ("", "")
    if column.different == column.rows:
        return "key", "different in every row"
    if column.different > _MOST_CATEGORIES or 2 * column.different >= column.rows:
        return "drop", f"text with {column.different:,} different values"
    return ("{missing: most_frequent}", f"{column.empty:,} empty") if column.empty else ("", "")


def plain(name: str) -> str:
    """Return a column's name as YAML has it, in quotes if they are needed."""
    return name if _PLAIN.match(name) and name.lower() not in _WORDS else json.dumps(name, ensure_ascii=False)


def plain_path(path: str) -> str:
    """Return a path or URL as YAML has it, in quotes if they are needed."""
    return path if _PATH.match(path) and not path.replace(".", "").isdigit() else json.dumps(path, ensure_ascii=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSize:
    """A network and a training that fit the number of rows and features."""

    units: tuple[int, ...]
    batch_size: int
    epochs: int
    learning_rate: float
    weight_decay: float


def size_for(rows: int) -> NetworkSize:
    """Return the size for a number of rows: more rows can teach a larger network, in fewer epochs."""
    return next(size for most, size in _SIZES if rows <= most)


def _size(
    units: tuple[int, ...], batch_size: int, epochs: int, learning_rate: float, weight_decay: float
) -> NetworkSize:
    return NetworkSize(
        units=units, batch_size=batch_size, epochs=epochs, learning_rate=learning_rate, weight_decay=weight_decay
    )


_SIZES = (
    (60, _size((16,), 4, 60, 0.01, 1.0)),
    (300, _size((16,), 16, 60, 0.005, 1.0)),
    (3_000, _size((32,), 32, 50, 0.003, 1.0)),
    (30_000, _size((64, 32), 64, 30, 0.002, 0.1)),
    (300_000, _size((128, 64), 256, 15, 0.002, 0.01)),
    (1 << 62, _size((256, 128), 1024, 10, 0.002, 0.01)),
)
"""By the most rows. Few rows are soon known by heart, which a strong weight decay prevents."""
