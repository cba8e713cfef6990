"""How large a job may be. The service reads any job of any size at these limits within about a second."""

from __future__ import annotations

MAX_DOCUMENT_BYTES = 2**20
"""Of a job file, and of the JSON that it travels as."""
MAX_ENTRIES = 50_000
"""Texts, numbers, lists and mappings of a job; what an alias stands for counts each time."""
MAX_DEPTH = 32
"""Lists and mappings within each other."""
MAX_TEXT = 4096
"""Characters of one text, such as a path."""
MAX_LAYERS = 10_000
MAX_DIMENSIONS = 32
MAX_ACTIONS = 200_000
"""Forward passes of a step: stages × micro-batches."""
MAX_PROBLEMS = 100
"""That are told at once."""


def document_problem(document: str) -> str | None:
    """What is said of a job that has too many bytes; None for one that has not."""
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
