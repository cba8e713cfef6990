"""`model.loss` as a pydantic model, made from the options that each loss declares in its own file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import create_model, model_validator

from coordinator.job.base_section import Section
from coordinator.job.layer_entries import plain_options, section_of
from stages.losses import LOSSES, LossSpec

LOSS_KINDS: tuple[str, ...] = tuple(LOSSES)


class LossBase(Section):
    """`model.loss`: one loss with its options; `mse` alone is short for `mse: {}`."""

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, value: object) -> object:
        if isinstance(value, str):
            return {value: {}}
        if isinstance(value, dict):
            return {kind: {} if options is None else options for kind, options in value.items()}
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> LossBase:
        if len(self.model_fields_set) != 1:
            raise ValueError
        return self

    @property
    def kind(self) -> str:
        """The name of the loss."""
        (kind,) = self.model_fields_set
        return kind

    def spec(self) -> LossSpec:
        """Return the loss as workers receive it."""
        return LossSpec(self.kind, plain_options(getattr(self, self.kind), LOSSES[self.kind].options))

    def document(self) -> str | dict[str, Any]:
        """Return the loss as a job file has it: only the name if every option has its default."""
        options: Section = getattr(self, self.kind)
        given = options.model_dump(exclude_defaults=True)
        return {self.kind: given} if given else self.kind


if TYPE_CHECKING:
    LossEntry = LossBase
else:
    _fields = {name: (section_of(kind.options) | None, None) for name, kind in LOSSES.items()}
    LossEntry = create_model("LossEntry", __base__=LossBase, __module__=__name__, __doc__=LossBase.__doc__, **_fields)
