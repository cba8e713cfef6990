"""The section `checkpoint` of a job file: how often the state is saved, and which checkpoints are kept."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PlainValidator, model_validator

from coordinator.checkpoints.policy import When
from coordinator.job.base_section import Section

_WAYS = ("every_steps", "every_seconds", "stall_budget")
_DEFAULT_BUDGET = 0.035
GRACE_S, GRACE_MOST_S = 30.0, 86_400
"""How long a stopped run may take to save, in seconds: if the job does not say it, and at most."""


def _share(value: object) -> object:
    """Return the number of a text such as "3.5%"; return other values unchanged."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,9})?)\s*%", value.strip())
    if match is None:
        raise ValueError
    return float(match[1]) / 100


def _to(value: object) -> str | None:
    """Return a URL to which something can be written."""
    if value is None:
        return None
    found = re.fullmatch(r"([A-Za-z][A-Za-z0-9+.-]*)://[^\x00-\x20]+", value) if isinstance(value, str) else None
    if found is None or found[1].lower() in ("http", "https") or "::" in found[0]:
        raise ValueError
    return found[0]


class CheckpointSection(Section):
    """`checkpoint`: at most one of `every_steps`, `every_seconds` and `stall_budget`, the last by default."""

    every_steps: int | None = Field(default=None, ge=1, le=2**63 - 1, description="a whole number of steps, at least 1")
    every_seconds: float | None = Field(default=None, gt=0, le=2_592_000, description="a number of seconds above 0")
    stall_budget: Annotated[float | None, Field(gt=0, lt=1), BeforeValidator(_share)] = Field(
        default=None, description="the share of the time in which training may stand still, such as 3.5%"
    )
    keep: int = Field(default=3, ge=1, le=2**31 - 1, description="a whole number of checkpoints, at least 1")
    keep_every: int | None = Field(
        default=None, ge=1, le=2**63 - 1, description="a whole number of steps: checkpoints of its multiples stay"
    )
    best: Literal["validation_loss", "validation_accuracy"] | None = Field(
        default=None, description="validation_loss or validation_accuracy: the best checkpoint stays"
    )

    to: Annotated[str | None, PlainValidator(_to)] = Field(
        default=None, description="the URL of a folder, such as s3://BUCKET/FOLDER or gs://BUCKET/FOLDER, or null"
    )
    grace: float = Field(
        default=GRACE_S,
        ge=0,
        le=GRACE_MOST_S,
        description="a number of seconds, at least 0: the time to save after a stop",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = [name for name in _WAYS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"it has {' and '.join(given)}; give one of them")
        return self

    @staticmethod
    def default() -> CheckpointSection:
        """Return the section of a job of the service that has none."""
        return CheckpointSection(stall_budget=_DEFAULT_BUDGET)

    def when(self) -> When:
        """Return the rule by which checkpoints are saved."""
        if self.every_steps is None and self.every_seconds is None:
            return When(stall_budget=self.stall_budget or _DEFAULT_BUDGET)
        return When(steps=self.every_steps, seconds=self.every_seconds)

    def document(self) -> dict[str, Any]:
        """Return the section as a job file has it."""
        return self.model_dump(exclude_none=True)
