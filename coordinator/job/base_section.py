"""The bases of all sections of a job file."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """A section of a job file: frozen, strict about types, and without unknown keys."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class OneOf(Section):
    """A section with exactly one entry, a kind and its options: `gelu: {approximate: tanh}`."""

    name_suffices: ClassVar[bool] = True
    """Whether `gelu` alone is short for `gelu: {}`."""

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, value: object) -> object:
        if isinstance(value, str) and cls.name_suffices:
            return {value: {}}
        if isinstance(value, dict):
            return {kind: {} if options is None else cls.long_form(kind, options) for kind, options in value.items()}
        return value

    @classmethod
    def long_form(cls, kind: object, options: object) -> object:
        """Return the options of `kind` without a short form of their own."""
        return options

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self.model_fields_set) != 1:
            raise ValueError
        return self

    @property
    def kind(self) -> str:
        """The kind that is given."""
        (kind,) = self.model_fields_set
        return kind

    @property
    def chosen(self) -> Any:
        """The options of that kind, a Section."""
        return getattr(self, self.kind)


def as_tuple(value: object) -> object:
    """Return a list as a tuple, and any other value unchanged."""
    return tuple(value) if isinstance(value, list) else value
