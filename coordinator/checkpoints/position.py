"""Where a run stands: all that it needs to go on, besides the state of its layers and its job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """The run has made `step` updates. Epoch and place in it follow from that.

    `owes_evaluation`: the evaluation after this step has not been made. `open_row` has the steps of a row of metrics
    that is not complete (`training.log_every`), as rows of one step each.
    """

    step: int = 0
    owes_evaluation: bool = False
    open_row: tuple[Mapping[str, Any], ...] = ()

    @property
    def step_of_last_row(self) -> int:
        """The last step whose row is complete."""
        return self.step - len(self.open_row)

    def document(self) -> dict[str, Any]:
        """Return the position as plain values."""
        return {"step": self.step, "owes_evaluation": self.owes_evaluation, "open_row": list(self.open_row)}

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> Position:
        """Return the position from the result of `document`."""
        return Position(
            step=int(document["step"]),
            owes_evaluation=bool(document["owes_evaluation"]),
            open_row=tuple(document["open_row"]),
        )


START = Position()
"""Before the first step."""
