"""The section `recovery` of a job file: how often a run goes on after the loss of a worker."""

from __future__ import annotations

from pydantic import Field

from coordinator.job.base_section import Section


class RecoverySection(Section):
    """`recovery`: with `max_restarts: 0` the first failure ends the job."""

    max_restarts: int = Field(
        default=3, ge=0, le=2**31 - 1, description="a whole number of workers that are replaced, at least 0"
    )
    backoff: float = Field(default=1.0, ge=0, le=3600, description="a number of seconds from 0 to 3600")
    room_timeout: float = Field(default=60.0, ge=0, le=2_592_000, description="a number of seconds, at most 30 days")
    grow_after: float = Field(default=60.0, ge=0, le=2_592_000, description="a number of seconds, at most 30 days")
    spare: int = Field(
        default=0, ge=0, le=1, description="0, or 1 for a process that waits to take a lost worker's place"
    )
