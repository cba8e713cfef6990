"""Further errors with which the service refuses a request, beside those of `stages.errors`. Each has a gRPC code."""

from __future__ import annotations

from stages.errors import Refused


class QueueFull(Refused):
    """The queue has reached its limit of jobs."""


class SubmissionIdTaken(Refused):
    """The submission id belongs to another job."""


class StoreTrouble(Refused):
    """The store cannot be used. The request itself may be right."""


class StoreUnwritable(StoreTrouble):
    """The store cannot be written now. The same change may succeed later."""


class NoSpace(StoreUnwritable):
    """The disk of the home is full."""


class StoreDamaged(StoreTrouble):
    """The store's file is damaged, or is not a store."""
