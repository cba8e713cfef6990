"""The section `data` of a job file: where rows come from, what their columns mean, which of them are for validation."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, model_validator

from coordinator.job.base_section import Section
from coordinator.job.source_names import TOKENS, WHAT_A_SOURCE_IS, extension, is_text, source_problem

Kind = Literal["number", "category", "drop", "key"]
Scale = Literal["standard", "minmax", "none"]
Missing = Literal["error", "drop", "mean", "median", "most_frequent"]
_MISSING = "error, drop, mean, median or most_frequent"
_SCALE = "standard, minmax or none"


def one_line(name: str) -> bool:
    """Whether a file's name fits on one line of a message and has no null byte, which systems refuse."""
    return len(name.splitlines()) == 1 and "\0" not in name


def _source(value: object) -> str:
    if not isinstance(value, str) or not one_line(value):
        raise ValueError
    if problem := source_problem(value):
        raise ValueError(problem.partition("; ")[2])
    return value


def _validation(value: object) -> float | int | str:
    if value is None or value == "none":
        return 0
    if isinstance(value, str):
        return _source(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise ValueError
    if isinstance(value, float) and value >= 1:
        raise ValueError
    return 0 if value == 0 else value


def _tokens(value: object) -> str | None:
    if value is None or value in TOKENS:
        return None if value is None else str(value)
    if not isinstance(value, str) or not one_line(value) or extension(value) != ".json":
        raise ValueError
    return value


def _names(value: object) -> object:
    """A name alone is short for a list of one. Whole numbers are names too: YAML reads the column 0 as a number."""
    listed = value if isinstance(value, (list, tuple)) else [value]
    return None if value is None else tuple(map(_name, listed))


def _columns(value: object) -> object:
    return {_name(name): given for name, given in value.items()} if isinstance(value, dict) else value


def _name(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class ColumnSection(Section):
    """One entry of `data.columns`: what a column is, how its numbers are scaled, what becomes of its empty cells."""

    kind: Kind | None = Field(default=None, description="number, category, drop or key")
    scale: Scale | None = Field(default=None, description=_SCALE)
    missing: Missing | None = Field(default=None, description=_MISSING)

    @model_validator(mode="before")
    @classmethod
    def _long_form(cls, value: object) -> object:
        """`age: number` is short for `age: {kind: number}`."""
        return {"kind": value} if isinstance(value, str) else value

    def document(self) -> object:
        """Return the entry as a job file has it, in its short form if that is enough."""
        given = self.model_dump(exclude_none=True)
        return given["kind"] if list(given) == ["kind"] else given


class CsvSection(Section):
    """`data.csv`: the dialect of a file of text; what is not given is found."""

    delimiter: str | None = Field(default=None, min_length=1, max_length=1, description="one character, such as ;")
    quote: str | None = Field(default=None, min_length=1, max_length=1, description="one character")
    encoding: str | None = Field(default=None, min_length=1, description="the name of an encoding, such as latin-1")
    header: bool | None = Field(default=None, description="true or false: whether the first line names the columns")
    decimal: Literal[".", ","] | None = Field(default=None, description='"." or ","')
    thousands: Literal[".", ",", " ", "'", "_"] | None = Field(default=None, description="one of . , ' _ or a space")
    comment: str | None = Field(
        default=None, max_length=8, description='how a comment line begins, such as "#", or "" for none'
    )


class ArraysSection(Section):
    """`data.arrays`: the names of the arrays in an .npz file."""

    x: str = Field(default="x", min_length=1, description="the name of the array of inputs")
    y: str = Field(default="y", min_length=1, description="the name of the array of targets")


class DataSection(Section):
    """`data`: where the rows come from, which columns are predicted, which rows are kept for validation."""

    source: Annotated[str, PlainValidator(_source)] = Field(description=WHAT_A_SOURCE_IS)
    target: Annotated[tuple[str, ...] | None, BeforeValidator(_names)] = Field(
        default=None, min_length=1, description="a list of column names"
    )
    columns: Annotated[dict[str, ColumnSection], BeforeValidator(_columns)] = Field(
        default={}, description="a mapping of columns' names to number, category, drop or key, or to their options"
    )
    scale: Scale | None = Field(default=None, description=f"{_SCALE}, for all columns of numbers")
    missing: Missing | None = Field(default=None, description=f"{_MISSING}, for all columns")
    csv: CsvSection | None = Field(default=None, description="a section with delimiter, encoding, header …")
    arrays: ArraysSection | None = Field(default=None, description="a section with the names of the arrays x and y")
    validation: Annotated[float | int | str, PlainValidator(_validation)] = Field(
        default=0.2,
        description="a share of the rows between 0 and 1, a number of rows, a second source, or 0 for none",
    )
    stratified: bool | None = Field(default=None, description="true or false: as many rows of each class in both parts")
    group: Annotated[str | None, BeforeValidator(_name)] = Field(
        default=None, min_length=1, description="the name of the column whose equal values stay in the same part"
    )
    tokens: Annotated[str | None, PlainValidator(_tokens)] = Field(
        default=None, description="characters, bytes or a tokenizer.json, for text"
    )
    block: int | None = Field(
        default=None, ge=1, le=2**20, description="a whole number of tokens, at least 1, for text"
    )
    windows: Literal["blocks", "random"] = Field(default="blocks", description="blocks or random")

    def __hash__(self) -> int:
        """As of equal sections; the mapping of columns has no hash."""
        return hash(self.model_dump_json())

    @property
    def validation_source(self) -> str:
        """The source of the validation rows: a second one, or the only one."""
        return self.validation if isinstance(self.validation, str) else self.source

    @property
    def is_text(self) -> bool:
        """Whether the rows are windows over tokens."""
        return is_text(self.source, self.block)

    def column(self, name: str) -> ColumnSection:
        """Return what is said of a column, with `scale` and `missing` of the whole section if it has none itself."""
        return self._completed(self.columns[name]) if name in self.columns else self._unnamed

    @cached_property
    def _unnamed(self) -> ColumnSection:  # made once: a table may have 100,000 such columns
        return self._completed(ColumnSection())

    def _completed(self, given: ColumnSection) -> ColumnSection:
        return ColumnSection(
            kind=given.kind, scale=given.scale or self.scale, missing=given.missing or self.missing or "error"
        )

    def document(self) -> dict[str, Any]:
        """Return the section as a job file has it, without what is off."""
        document = self.model_dump()
        document["columns"] = {name: column.document() for name, column in self.columns.items()}
        for name, section in (("csv", self.csv), ("arrays", self.arrays)):
            document[name] = None if section is None else section.model_dump(exclude_none=True)
        optional = ("columns", "scale", "missing", "csv", "arrays", "stratified", "group", "tokens", "block")
        off = [name for name in optional if document[name] is None or document[name] == {}]
        off += ["windows"] if self.windows == "blocks" else []
        return {name: value for name, value in document.items() if name not in off}
