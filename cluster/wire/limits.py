"""Sizes that client and service agree on."""

from __future__ import annotations

MAX_REQUEST_BYTES = 2 * 2**20
"""Of one message to the service: a job's document, and room. Data travels in parts of at most 1 MiB."""
