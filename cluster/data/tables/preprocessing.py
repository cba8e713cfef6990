"""How the columns of a table become numbers: rules that were fitted to the training rows, kept as plain JSON.

`fit` makes them (see `cluster.data.tables.fitting`); `Preprocessing` applies them, to the training file as to any
later one. The run directory has them as preprocessing.json.

x = (v − offset) / divisor for a column of numbers, in float64, then in the job's precision. A category becomes one
number for each known value, 1 for its own and 0 for the others; a value that the training rows do not have gives zeros.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

PREPROCESSING_FORMAT = "pipetrain.preprocessing/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberRule:
    """A column of numbers. `fill` replaces an empty cell; None if `missing` is error or drop."""

    name: str
    scale: str = "none"
    offset: float = 0.0
    divisor: float = 1.0
    missing: str = "error"
    fill: float | None = None
    kind: Literal["number"] = "number"

    @property
    def features(self) -> tuple[str, ...]:
        """The names of its numbers."""
        return (self.name,)


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryRule:
    """A column of texts, with the values that the training rows have, sorted."""

    name: str
    categories: tuple[str, ...]
    missing: str = "error"
    fill: str | None = None
    kind: Literal["category"] = "category"

    @property
    def features(self) -> tuple[str, ...]:
        """The names of its numbers, such as `island=Biscoe`."""
        return tuple(f"{self.name}={value}" for value in self.categories)


InputRule = NumberRule | CategoryRule


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRule:
    """What is predicted. `classes`: the names of the labels 0, 1, …; None if the targets are numbers, which are then
    scaled like inputs, one offset and divisor a column."""

    names: tuple[str, ...]
    classes: tuple[str, ...] | None = None
    scale: str = "none"
    offsets: tuple[float, ...] = ()
    divisors: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """The rules of all columns. `left_out` has the columns that are not used, each with the reason."""

    inputs: tuple[InputRule, ...]
    target: TargetRule
    key: str | None = None
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the input columns, in their order."""
        return tuple(rule.name for rule in self.inputs)

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the numbers of a row, in their order."""
        return tuple(name for rule in self.inputs for name in rule.features)

    def document(self) -> dict[str, Any]:
        """Return the rules as plain values for JSON."""
        return {
            "format": PREPROCESSING_FORMAT,
            "inputs": [asdict(rule) for rule in self.inputs],
            "target": asdict(self.target),
            "key": self.key,
            "left_out": dict(self.left_out),
        }

    @staticmethod
    def from_document(document: dict[str, Any]) -> Preprocessing:
        """Return the rules from the result of `document`. Raises ValueError, KeyError or TypeError if it is another."""
        if document["format"] != PREPROCESSING_FORMAT:
            raise ValueError(f"its format is {document['format']!r}, not {PREPROCESSING_FORMAT!r}")
        kinds: dict[str, type[NumberRule] | type[CategoryRule]] = {"number": NumberRule, "category": CategoryRule}
        return Preprocessing(
            inputs=tuple(kinds[rule["kind"]](**_tuples(rule)) for rule in document["inputs"]),
            target=TargetRule(**_tuples(document["target"])),
            key=document["key"],
            left_out=tuple(document["left_out"].items()),
        )


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
