"""Names of data sources: the built-in ones, and the files that can be read. No file is opened here."""

from __future__ import annotations

import re
from pathlib import Path

from coordinator.job.nearest import did_you_mean

BUILT_IN: tuple[str, ...] = ("digits", "diabetes", "stdlib")
"""Sources that need no file."""

TEXTS: tuple[str, ...] = (".txt", ".jsonl", ".bin", ".npy")
"""Files of text or of token numbers, which `data.block` cuts into rows."""

TEXTS_OR_ROWS: tuple[str, ...] = (".jsonl", ".npy")
"""Files of text or tokens if `data.block` is given, otherwise of rows."""

COMPRESSIONS: tuple[str, ...] = (".gz", ".zst")
"""What follows the extension of a table that is compressed as a whole, as in .csv.gz."""

TOKENS: tuple[str, ...] = ("characters", "bytes")
"""The kinds of tokens that need no tokenizer.json."""

_WRITTEN = (".csv", ".tsv", ".jsonl")
_COMPRESSED = tuple(f"{kind}{compression}" for kind in _WRITTEN for compression in COMPRESSIONS)

TABLES: tuple[str, ...] = (*_WRITTEN, *_COMPRESSED, ".parquet", ".feather", ".arrow")
"""Files with named columns; `data.target` chooses the columns to predict."""

EXTENSIONS: tuple[str, ...] = (".npz", *dict.fromkeys((*TABLES, *TEXTS)))
"""The extensions of files that can be read."""

FILES: tuple[str, ...] = (*EXTENSIONS, ".json", ".safetensors")
"""Files that a job names: of data, of a schedule, a tokenizer, weights to begin with."""

FILE_ENTRIES = (
    ("data", "source"),
    ("data", "target"),
    ("data", "validation"),
    ("data", "tokens"),
    ("model", "weights"),
    ("pipeline", "schedule"),
)
"""The entries that may name a file."""

PROTOCOLS: tuple[str, ...] = ("file", "http", "https", "s3", "gs", "gcs", "az", "abfs", "abfss")
"""The protocols that a URL may have. fsspec knows many more, and some of them execute what they read; so the allowed
ones are listed."""

WHAT_A_SOURCE_IS = (
    "digits, diabetes, stdlib, a file or URL (.csv, .tsv or .jsonl, also with .gz or .zst, .parquet, .feather, .arrow, "
    ".npz, .npy, .txt, .bin), a pattern such as parts/*.csv, or a folder such as flowers/"
)

_URL = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*(?:::[A-Za-z][A-Za-z0-9+.-]*)*)://")
_IPV6_HOST = re.compile(r"^https?://(?:[^/?#@]*@)?\[[0-9A-Fa-f:.%]*\]", re.IGNORECASE)


def is_text(source: str, block: object) -> bool:
    """Whether the source is text or tokens. Files of JSON lines and arrays are if `block` (`data.block`) is given."""
    if source in BUILT_IN:
        return source == "stdlib"
    return extension(source) in TEXTS and (block is not None or extension(source) not in TEXTS_OR_ROWS)


def has_columns(source: str, block: object = None) -> bool:
    """Whether the source is a table with named columns."""
    if source in BUILT_IN or is_text(source, block):
        return False
    return extension(source) in TABLES or is_folder(source)


def is_folder(source: str) -> bool:
    """Whether the source is a local folder: its name ends in `/`."""
    return source.endswith("/") and not is_url(source)


def is_pattern(source: str) -> bool:
    """Whether the source is a pattern of local files, such as `parts/*.csv`."""
    return any(sign in source for sign in "*?[") and not is_url(source)


def is_url(source: str) -> bool:
    """Whether a source has the form of a URL, even if its protocol is not allowed (see `source_problem`)."""
    return _URL.match(source) is not None


def protocol(source: str) -> str:
    """Return the part before `://`, in lower case; `file` for a path."""
    match = _URL.match(source)
    return match[1].lower() if match else "file"


def local_path(source: str) -> str | None:
    """Return the path of a local file, with or without `file://`; None for other URLs and for built-in sources."""
    if source in BUILT_IN or protocol(source) != "file":
        return None
    return source[len("file://") :] if is_url(source) else source


def extension(source: str) -> str:
    """Return the extension of the source, with its dot and in lower case, as `.csv` or `.csv.gz`; a URL's query does
    not count."""
    path = Path(re.split(r"[?#]", source, maxsplit=1)[0] if is_url(source) else source)
    last = path.suffix.lower()
    return f"{Path(path.stem).suffix.lower()}{last}" if last in COMPRESSIONS else last


def source_problem(source: str) -> str | None:
    """Return the problem of a source's name, with the nearest right name; None if the name is allowed."""
    if source in BUILT_IN:
        return None
    if is_url(source) and (hint := _url_problem(source)):
        return f"got {source!r}, must be {WHAT_A_SOURCE_IS}; {hint}"
    if extension(source) in EXTENSIONS or is_folder(source):
        return None
    hint = did_you_mean(source, BUILT_IN)
    if not hint and (ending := extension(source)):
        hint = did_you_mean(ending, EXTENSIONS, 0.5)  # in a short word, one letter makes a great difference
    return f"got {source!r}, must be {WHAT_A_SOURCE_IS}{hint}"


def _url_problem(url: str) -> str:
    """Return the reason why a URL is not allowed; an empty text if it is allowed."""
    if "::" in _IPV6_HOST.sub("", url):
        return "chained URLs (with ::) are not read, since one of them decides what the next one does"
    if protocol(url) not in PROTOCOLS:
        return f"a URL begins with {', '.join(f'{name}://' for name in PROTOCOLS)}"
    if url.lower().startswith("file://") and not url[len("file://") :].startswith("/"):
        return "file:// is followed by an absolute path, such as file:///data/rows.csv"
    return ""


def files_named(document: object) -> dict[str, str]:
    """Return the files and URLs that a job's document names, by their entries, such as `data.source`. Entries that are
    wrong count too if they have the form of a file's name."""
    found = {}
    for section, key in FILE_ENTRIES:
        entries = document.get(section) if isinstance(document, dict) else None
        name = entries.get(key) if isinstance(entries, dict) else None
        if key == "target":
            name = target_file(entries)
        if isinstance(name, str) and (extension(name) in FILES or is_folder(name)):
            found[f"{section}.{key}"] = name
    return found


def target_file(data: object) -> str | None:
    """Return the file that `data.target` names in a document's section `data`; None if it names columns. It belongs to
    an .npy file of inputs."""
    source, target = (data.get("source"), data.get("target")) if isinstance(data, dict) else (None, None)
    if isinstance(target, (list, tuple)) and len(target) == 1:
        target = target[0]
    pair = isinstance(source, str) and isinstance(target, str) and extension(source) == ".npy"
    return str(target) if pair else None


def resolve_source(source: str, folder: Path) -> str:
    """Return the source with a path relative to `folder` made absolute; built-in names and URLs stay as they are."""
    known = extension(source) in EXTENSIONS or is_folder(source)
    if source in BUILT_IN or is_url(source) or not source or "\0" in source or not known:
        return source
    return resolve_path(source, folder) + "/" * is_folder(source)


def resolve_file(name: str, folder: Path, ending: str) -> str:
    """Like `resolve_path`, if the name has the extension `ending`; URLs and all other names stay as they are."""
    return name if is_url(name) or "\0" in name or extension(name) != ending else resolve_path(name, folder)


def resolve_path(path: str, folder: Path) -> str:
    """Return the path, relative to `folder`, as an absolute path; `~` is the home directory, if there is one."""
    try:
        wanted = Path(path).expanduser()
    except RuntimeError:
        wanted = Path(path)
    return str(folder / wanted)


def resolve_database(uri: str, folder: Path) -> str:
    """Make the relative path in a URI such as `sqlite:///runs.db` absolute, from `folder`; other URIs stay as they
    are."""
    scheme, slashes, path = uri.partition(":///")
    if not slashes or not scheme.startswith("sqlite") or not path or path.startswith("/"):
        return uri
    return f"{scheme}:///{folder / path}"
