"""How large a job may be. The service reads any job within these limits in about a second."""

from __future__ import annotations

MAX_DOCUMENT_BYTES = 2**20
"""Bytes of a job file, and of the JSON in which it is sent."""
MAX_ENTRIES = 50_000
"""Texts, numbers, lists and mappings of a job; an alias counts as all that it stands for."""
MAX_DEPTH = 32
"""How deep lists and mappings may be nested."""
MAX_TEXT = 4096
"""Characters of one text, such as a path."""
MAX_LAYERS = 10_000
MAX_DIMENSIONS = 32
MAX_ACTIONS = 200_000
"""Forward passes a step: stages × micro-batches."""
MAX_PROBLEMS = 100
"""Problems that are reported at once."""


def document_problem(document: str) -> str | None:
    """Return the problem of a job that has too many bytes; None if it has not."""
    if len(document) <= MAX_DOCUMENT_BYTES // 4:
        return None
    n_bytes = len(document.encode("utf-8", "surrogatepass"))
    if n_bytes <= MAX_DOCUMENT_BYTES:
        return None
    return f"the job has {n_bytes:,} bytes, must have at most {MAX_DOCUMENT_BYTES:,}"


def encodable(text: str) -> bool:
    """Whether UTF-8 can hold the text: half of a surrogate pair cannot be stored, sent or printed."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
