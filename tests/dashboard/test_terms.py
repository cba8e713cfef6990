"""The pages and the glossary explain words with the same texts."""

from __future__ import annotations

import re
from pathlib import Path

from cluster.dashboard.terms import TERMS

GLOSSARY = Path(__file__).parents[2] / "docs" / "glossary.md"
SECTION = "## Words of the dashboard"


def rows(text: str) -> dict[str, str]:
    """Return word and meaning of the rows of tables."""
    found = re.findall(r"^\| \*\*(.+?)\*\* \| (.+?) \|$", text, re.MULTILINE)
    return {word.replace("`", ""): meaning.replace("`", "") for word, meaning in found}


def test_the_glossary_says_of_every_word_of_the_pages_what_the_pages_say() -> None:
    above, _, own = GLOSSARY.read_text().partition(SECTION)
    general = rows(above)
    shared = TERMS.keys() & general.keys()
    assert {"step", "stage", "worker", "bubble"} <= shared
    assert {word: general[word] for word in shared} == {word: in_a_table(TERMS[word]) for word in shared}
    wanted = {word: in_a_table(meaning) for word, meaning in TERMS.items() if word not in shared}
    table = "\n".join(f"| **{word}** | {meaning} |" for word, meaning in wanted.items())
    assert rows(own) == wanted, f"the table below {SECTION!r} of {GLOSSARY.name} must be:\n{table}"


def in_a_table(meaning: str) -> str:
    return meaning[:1].lower() + meaning[1:]
