"""Random tables in random dialects are read as exactly those values or not at all, and never as something else."""

from __future__ import annotations

import csv
import gzip
import io
import math
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from cluster.data.content import Table
from cluster.data.files import read_source
from cluster.data.formats.arrow_csv import EMPTY
from cluster.data.sources import load_data
from coordinator.job.data_section import DataSection
from coordinator.job.spec import parse_job
from stages.errors import InvalidData
from tests.examples import examples

Cell = int | float | bool | date | str | None


@dataclass(frozen=True, kw_only=True)
class Dialect:
    delimiter: str
    quote: str
    quoting: Any
    decimal: str
    thousands: str
    end: str
    last_end: bool
    encoding: str
    before: str
    index: bool
    blank_lines: bool
    compressed: bool


def dialects() -> st.SearchStrategy[Dialect]:
    return st.builds(
        Dialect,
        delimiter=st.sampled_from(",;\t|"),
        quote=st.sampled_from('"""\''),
        quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
        decimal=st.sampled_from("..,"),
        thousands=st.sampled_from(["", "", "", ".", ",", " ", "'"]),
        end=st.sampled_from(["\n", "\n", "\r\n", "\r"]),
        last_end=st.booleans(),
        encoding=st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252"]),
        before=st.sampled_from(["", "", "", "# a logger\n", "sep=\n", "\n", "# a, b; c\n# d\n"]),
        index=st.booleans(),
        blank_lines=st.booleans(),
        compressed=st.booleans(),
    ).filter(lambda d: d.decimal != d.thousands)


LETTERS = st.text(st.sampled_from("ab1 2,;\t|'\"\n\r#.é€-0NA"), max_size=6)
NUMBERS = st.one_of(st.integers(-(10**6), 10**6), st.integers(-(2**53), 2**53))
FLOATS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(10**7), 10**7).map(lambda k: k / 1000),
    st.integers(-1000, 1000).map(lambda k: k / 2),
)
KINDS: list[st.SearchStrategy[Any]] = [
    NUMBERS,
    FLOATS,
    st.booleans(),
    st.dates(date(1900, 1, 1), date(2100, 1, 1)),
    LETTERS,
    st.sampled_from(["yes", "no", "maybe"]),
    st.integers(0, 999).map(lambda k: f"{k:03}"),
]


@st.composite
def tables(draw: st.DrawFn) -> dict[str, list[Cell]]:
    names = draw(st.lists(st.text(st.sampled_from("abyé,; 1'\"#"), min_size=1, max_size=4), min_size=1, max_size=5))
    n_rows = draw(st.integers(1, 8))
    found: dict[str, list[Cell]] = {}
    for name in names:
        kind = draw(st.sampled_from(KINDS))
        gaps = draw(st.sampled_from([0, 0, 0, 1]))
        cells = st.one_of(kind, st.none()) if gaps else kind
        found[name.strip() or "x"] = draw(st.lists(cells, min_size=n_rows, max_size=n_rows))
    return found


def text_of(cell: Cell, dialect: Dialect) -> str | float:
    if isinstance(cell, bool | date):
        return str(cell)
    if isinstance(cell, int | float):
        text = format(cell, "," if dialect.thousands else "") if isinstance(cell, int) else _float(cell, dialect)
        return text.replace(",", "\0").replace(".", dialect.decimal).replace("\0", dialect.thousands)
    return "" if cell is None else cell


def _float(cell: float, dialect: Dialect) -> str:
    plain = dialect.thousands and 1e-3 < abs(cell) < 1e15 and float(f"{cell:,.3f}".replace(",", "")) == cell
    return f"{cell:,.3f}" if plain else repr(cell)


def written(table: dict[str, list[Cell]], dialect: Dialect) -> bytes:
    out = io.StringIO()
    breaks = any("\r" in cell or "\n" in cell for cells in table.values() for cell in cells if isinstance(cell, str))
    quoting: Any = csv.QUOTE_ALL if breaks else dialect.quoting  # older versions of csv do not quote a lone \r
    writer = csv.writer(
        out, delimiter=dialect.delimiter, quotechar=dialect.quote, quoting=quoting, lineterminator=dialect.end
    )
    index = [""] if dialect.index else []
    writer.writerow([*index, *table])
    for k, row in enumerate(zip(*table.values(), strict=True)):
        writer.writerow([*([k] if index else []), *(text_of(cell, dialect) for cell in row)])
        if dialect.blank_lines and len(table) + len(index) > 1:
            out.write(dialect.end)
    text = out.getvalue() if dialect.last_end else out.getvalue().removesuffix(dialect.end)
    before = dialect.before.replace("sep=", f"sep={dialect.delimiter}").replace("\n", dialect.end)
    content = (before + text).encode(dialect.encoding)
    return gzip.compress(content) if dialect.compressed else content


def is_same(cell: Cell, value: Any, notes: str, dialect: Dialect) -> bool:
    """Whether a value that was read is the cell. A text of digits may be read as the number that it is."""
    if cell is None or cell == "":
        return value is None or value == ""
    if isinstance(cell, bool) or not isinstance(cell, str):
        if value is None:
            return False
        if isinstance(value, str):  # a column of texts, because another cell of it is one
            return value == text_of(cell, dialect)
        if isinstance(value, date):
            return str(value)[:10] == str(cell)
        if (
            not isinstance(cell, bool)
            and dialect.thousands == "."
            and "decimal comma" not in notes
            and "thousands" not in notes
        ):
            return float(value) == float(str(text_of(cell, dialect)))  # 1.000 is one if nothing in the file says else
        return float(value) == float(cell)  # type: ignore[arg-type]
    if value == cell:
        return True
    trimmed = cell.strip()
    if value is None:
        return trimmed in EMPTY
    if isinstance(value, bool):
        return trimmed.lower() == str(value).lower()
    if isinstance(value, int | float):
        plain = trimmed
        if "thousands" in notes:
            plain = plain.replace("." if "decimal comma" in notes else ",", "")
        plain = plain.replace(",", ".") if "decimal comma" in notes else plain
        starts_with_zero = plain.lstrip("+-")[:1] == "0" and plain.lstrip("+-")[1:2].isdigit()
        try:
            return math.isclose(float(plain), value, rel_tol=0) and not (starts_with_zero and "." not in plain)
        except ValueError:
            return False
    return False


@settings(
    max_examples=examples(150, 4000),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(table=tables(), dialect=dialects(), is_given=st.booleans())
def test_a_table_is_read_as_it_was_written_or_not_at_all(
    table: dict[str, list[Cell]], dialect: Dialect, is_given: bool
) -> None:
    try:
        content = written(table, dialect)
    except (UnicodeEncodeError, csv.Error):
        return
    entries: dict[str, Any] = {"delimiter": dialect.delimiter, "quote": dialect.quote, "decimal": dialect.decimal,
                               "encoding": dialect.encoding, "header": True}  # fmt: skip
    entries["comment"] = "#" if dialect.before.startswith("#") else ""
    first, *_ = table
    if is_given and entries["comment"] and any(str(text).startswith("#") for text in (first, *table[first])):
        return  # what is said of comments makes comments of the table's own lines
    if dialect.thousands:
        entries["thousands"] = dialect.thousands
    if not is_given and len(table) == 1 and not dialect.index and any(sign in first for sign in ",;\t|"):
        return  # the only name is `a,b`: nothing shows that the comma does not divide it
    with TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_bytes(content)
        section = DataSection.model_validate({"source": str(path), "csv": entries if is_given else None})
        try:
            read = read_source(str(path), None, section)
            assert isinstance(read, Table)
            lines = None if read.lines is None else read.lines[:]
        except InvalidData as error:
            event("an error")
            problems = list(error.problems)
            read = None
    if read is None:
        assert all(line.startswith(f"{path}: ") and len(line) < 1000 for line in problems), problems
        assert not any("cannot be read as" in line for line in problems), problems
        return
    event(f"read {'as given' if is_given else 'as found'}")
    if any("quote '" in note for note in read.notes) and dialect.quote != "'":
        assert all(name[0] == name[-1] == "'" for name in table), "names that all stand in '…' are said to be quoted"
        return
    columns = dict(read.columns)
    if dialect.index:
        assert columns.pop("Unnamed: 0").to_pylist() == list(range(read.n_rows))
        assert read.index == ("Unnamed: 0",)
    assert list(columns) == list(table)
    assert lines is not None
    assert len(lines) == read.n_rows == len(next(iter(table.values())))
    notes = " ".join(read.notes) + (f" decimal {'comma' if dialect.decimal == ',' else 'point'}" if is_given else "")
    for name, cells in table.items():
        values = columns[name].to_pylist()
        for cell, value in zip(cells, values, strict=True):
            assert is_same(cell, value, notes, dialect), (name, cell, value, read.notes)


@settings(max_examples=examples(60, 2000), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=st.lists(st.tuples(*[FLOATS] * 3), min_size=2, max_size=8),
    dialect=dialects().map(lambda found: replace(found, thousands="", quote='"')),
)
def test_a_job_trains_on_exactly_those_numbers_or_gives_an_error(
    rows: list[tuple[float, ...]], dialect: Dialect
) -> None:
    table: dict[str, list[Cell]] = {name: [row[k] for row in rows] for k, name in enumerate(("a", "b", "y"))}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_bytes(written(table, dialect))
        document = {
            "precision": "float64",
            "model": {"layers": [{"linear": {"units": 1}}], "loss": "mse"},
            "data": {"source": str(path), "scale": "none", "validation": 0},
            "training": {"epochs": 1, "batch_size": 2, "optimizer": {"sgd": {"learning_rate": 0.1}}},
        }
        try:
            data = load_data(parse_job(document))
        except InvalidData:
            event("an error")
            return
    event("trained")
    found = [(*x, y) for x, (y,) in zip(data.train.x.tolist(), data.train.y.tolist(), strict=True)]
    assert sorted(found) == sorted(tuple(map(float, row)) for row in rows)
