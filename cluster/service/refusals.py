"""What the service refuses, beside what `stages.errors` has: each has a status code of its own."""

from __future__ import annotations

from stages.errors import Refused


class QueueFull(Refused):
    """The queue holds as many jobs as it may."""


class SubmissionIdTaken(Refused):
    """The submission id belongs to another job."""
