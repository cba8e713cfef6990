"""What the service refuses, beside what `stages.errors` has: each has a status code of its own."""

from __future__ import annotations

from stages.errors import Refused


class QueueFull(Refused):
    """The queue holds as many jobs as it may."""


class SubmissionIdTaken(Refused):
    """The submission id belongs to another job."""


class StoreTrouble(Refused):
    """It is not the request: the store cannot be used."""


class StoreUnwritable(StoreTrouble):
    """The store cannot be written for now; what was to be noted can be noted later."""


class NoSpace(StoreUnwritable):
    """No space is left where the home is."""


class StoreDamaged(StoreTrouble):
    """What the store's file holds is no store, or not whole."""
