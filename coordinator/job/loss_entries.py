"""`model.loss` as a pydantic model, made from the options that each loss declares in its own file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import create_model

from coordinator.job.base_section import OneOf
from coordinator.job.layer_entries import plain_options, section_of
from stages.losses import LOSSES, LossSpec

LOSS_KINDS: tuple[str, ...] = tuple(LOSSES)


class LossBase(OneOf):
    """`model.loss`: one loss with its options; `mse` alone is short for `mse: {}`."""

    def spec(self) -> LossSpec:
        """Return the loss as workers receive it."""
        return LossSpec(self.kind, plain_options(self.chosen, LOSSES[self.kind].options))

    def document(self) -> str | dict[str, Any]:
        """Return the loss as a job file has it: only the name if every option has its default."""
        given = self.chosen.model_dump(exclude_defaults=True)
        return {self.kind: given} if given else self.kind


if TYPE_CHECKING:
    LossEntry = LossBase
else:
    _fields = {name: (section_of(kind.options) | None, None) for name, kind in LOSSES.items()}
    LossEntry = create_model("LossEntry", __base__=LossBase, __module__=__name__, __doc__=LossBase.__doc__, **_fields)
