"""Size limits that both the client and the service use."""

from __future__ import annotations

MAX_REQUEST_BYTES = 2 * 2**20
"""The largest message to the service, enough for a job's document. Data is sent in parts of at most 1 MiB."""
