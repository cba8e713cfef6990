"""Names of data sources: which are built in, which files can be read. No file is opened here."""

from __future__ import annotations

import re
from pathlib import Path

from coordinator.job.nearest import did_you_mean

BUILT_IN: tuple[str, ...] = ("digits", "diabetes", "stdlib")
"""Sources that need no file."""

TEXTS: tuple[str, ...] = (".txt", ".jsonl", ".bin", ".npy")
"""Files of text or of token numbers, which `data.block` cuts into rows."""

TOKENS: tuple[str, ...] = ("characters", "bytes")
"""What a token of a text may be, beside those of a tokenizer.json."""

EXTENSIONS: tuple[str, ...] = (".npz", ".csv", ".parquet", *TEXTS)
"""Files that can be read, by how their names end."""

FILES: tuple[str, ...] = (*EXTENSIONS, ".json", ".safetensors")
"""Files that a job names: of data, of a schedule, a tokenizer, weights to begin with."""

FILE_ENTRIES = (
    ("data", "source"),
    ("data", "validation"),
    ("data", "tokens"),
    ("model", "weights"),
    ("pipeline", "schedule"),
)
"""The entries that may name one."""

TABLES: tuple[str, ...] = (".csv", ".parquet")
"""Files with named columns, where `data.target` chooses what to predict."""

PROTOCOLS: tuple[str, ...] = ("file", "http", "https", "s3", "gs", "gcs", "az", "abfs", "abfss")
"""What a URL may begin with. fsspec knows many more, and some of them run what they read: a list, not a filter."""

WHAT_A_SOURCE_IS = "digits, diabetes, stdlib, or a .npz, .csv, .parquet, .txt, .jsonl, .bin or .npy file or URL"

_URL = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*(?:::[A-Za-z][A-Za-z0-9+.-]*)*)://")
_IPV6_HOST = re.compile(r"^https?://(?:[^/?#@]*@)?\[[0-9A-Fa-f:.%]*\]", re.IGNORECASE)


def is_text(source: str) -> bool:
    """Whether the source is text or tokens."""
    return source == "stdlib" or (source not in BUILT_IN and extension(source) in TEXTS)


def is_url(source: str) -> bool:
    """True for what has the form of a URL, whether its protocol may be used or not (see `source_problem`)."""
    return _URL.match(source) is not None


def protocol(source: str) -> str:
    """What stands before `://`, in lower case; `file` for a path."""
    match = _URL.match(source)
    return match[1].lower() if match else "file"


def local_path(source: str) -> str | None:
    """The path of a local file, which `file://` may stand before; None for other URLs and for built-in sources."""
    if source in BUILT_IN or protocol(source) != "file":
        return None
    return source[len("file://") :] if is_url(source) else source


def extension(source: str) -> str:
    """How the source's last name ends, with the dot and in lower case; a URL's query is not part of it."""
    path = re.split(r"[?#]", source, maxsplit=1)[0] if is_url(source) else source
    return Path(path).suffix.lower()


def source_problem(source: str) -> str | None:
    """What is wrong with a source's name, with the nearest right one; None where it can be tried."""
    if source in BUILT_IN:
        return None
    if is_url(source) and (hint := _url_problem(source)):
        return f"got {source!r}, must be {WHAT_A_SOURCE_IS}; {hint}"
    if extension(source) in EXTENSIONS:
        return None
    hint = did_you_mean(source, BUILT_IN)
    if not hint and (ending := extension(source)):
        hint = did_you_mean(ending, EXTENSIONS, 0.5)  # of few letters, one makes much of a difference
    return f"got {source!r}, must be {WHAT_A_SOURCE_IS}{hint}"


def _url_problem(url: str) -> str:
    """What no URL of a source may be; empty where it is none of that."""
    if "::" in _IPV6_HOST.sub("", url):
        return "URLs that are chained by :: are not read, since one of them decides what the next one does"
    if protocol(url) not in PROTOCOLS:
        return f"a URL begins with {', '.join(f'{name}://' for name in PROTOCOLS)}"
    if url.lower().startswith("file://") and not url[len("file://") :].startswith("/"):
        return "file:// is followed by an absolute path, such as file:///data/rows.csv"
    return ""


def files_named(document: object) -> dict[str, str]:
    """The files and URLs that a job's document names, by their entries, such as `data.source`. Wrong entries count as
    far as they have the form."""
    found = {}
    for section, key in FILE_ENTRIES:
        entries = document.get(section) if isinstance(document, dict) else None
        name = entries.get(key) if isinstance(entries, dict) else None
        if isinstance(name, str) and extension(name) in FILES:
            found[f"{section}.{key}"] = name
    return found


def resolve_source(source: str, folder: Path) -> str:
    """The source with a relative path seen from `folder`; built-in names and URLs stay as they are."""
    if source in BUILT_IN or is_url(source) or not source or "\0" in source or extension(source) not in EXTENSIONS:
        return source
    return resolve_path(source, folder)


def resolve_file(name: str, folder: Path, ending: str) -> str:
    """The name of a file that ends so, seen from `folder`; URLs and all other names stay as they are."""
    return name if is_url(name) or "\0" in name or extension(name) != ending else resolve_path(name, folder)


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
