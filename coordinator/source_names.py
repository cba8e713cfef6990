"""Names of data sources: which are built in, which files can be read. No file is opened here."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

BUILT_IN: tuple[str, ...] = ("digits", "diabetes")
"""Sources that need no file."""

EXTENSIONS: tuple[str, ...] = (".npz", ".csv", ".parquet")
"""Files that can be read, by how their names end."""

TABLES: tuple[str, ...] = (".csv", ".parquet")
"""Files with named columns, where `data.target` chooses what to predict."""

WHAT_A_SOURCE_IS = "digits, diabetes, or a .npz, .csv or .parquet file or URL"

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*(::[A-Za-z][A-Za-z0-9+.-]*)*://")


def is_url(source: str) -> bool:
    """True for `file://…`, `memory://…`, `https://…`, `zip::https://…`: what fsspec opens."""
    return _URL.match(source) is not None


def extension(source: str) -> str:
    """How the source's last name ends, with the dot and in lower case; a URL's query is not part of it."""
    path = re.split(r"[?#]", source, maxsplit=1)[0] if is_url(source) else source
    return Path(path).suffix.lower()


def source_problem(source: str) -> str | None:
    """What is wrong with a source's name, with the nearest right one; None where it can be tried."""
    if source in BUILT_IN or extension(source) in EXTENSIONS:
        return None
    near = difflib.get_close_matches(source, BUILT_IN, n=1)
    if not near and (ending := extension(source)):
        near = difflib.get_close_matches(ending, EXTENSIONS, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"got {source!r}, must be {WHAT_A_SOURCE_IS}{hint}"


def resolve_source(source: str, folder: Path) -> str:
    """The source with a relative path seen from `folder`; built-in names and URLs stay as they are."""
    if source in BUILT_IN or is_url(source) or not source or "\0" in source or extension(source) not in EXTENSIONS:
        return source
    return resolve_path(source, folder)


def resolve_path(path: str, folder: Path) -> str:
    """The path seen from `folder`, with `~` replaced by the home directory where there is one."""
    try:
        wanted = Path(path).expanduser()
    except RuntimeError:
        wanted = Path(path)
    return str(folder / wanted)


def resolve_database(uri: str, folder: Path) -> str:
    """`sqlite:///runs.db`, whose path is relative, seen from `folder`; every other URI stays as it is."""
    scheme, slashes, path = uri.partition(":///")
    if not slashes or not scheme.startswith("sqlite") or not path or path.startswith("/"):
        return uri
    return f"{scheme}:///{folder / path}"
