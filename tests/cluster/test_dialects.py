"""Files of text as people have them: what is found is what the file says, and it is said; what is not clear is an
error."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cluster.data.content import Table
from cluster.data.files import read_source
from cluster.data.rules import SourceRules
from coordinator.job.data_section import DataSection
from stages.errors import InvalidData


def read(path: Path, content: str | bytes, **given: Any) -> Table:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    section = DataSection.model_validate({"source": str(path), "csv": given}) if given else None
    table = read_source(str(path), None, section)
    assert isinstance(table, Table)
    return table


def columns(table: Table) -> dict[str, list[Any]]:
    return {name: column.to_pylist() for name, column in table.columns.items()}


def problems(path: Path, content: str | bytes, **given: Any) -> list[str]:
    with pytest.raises(InvalidData) as caught:
        read(path, content, **given)
    assert all(line.startswith(f"{path}: ") for line in caught.value.problems)
    return [line.removeprefix(f"{path}: ") for line in caught.value.problems]


PLAIN = {"a": [1, 2], "name": ["café", "thé"], "y": [0.5, 1.5]}


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ("a,name,y\n1,café,0.5\n2,thé,1.5\n", None),
        ("a;name;y\n1;café;0.5\n2;thé;1.5\n", "read as: delimiter ;"),
        ("a\tname\ty\n1\tcafé\t0.5\n2\tthé\t1.5\n", "read as: delimiter tab"),
        ("a|name|y\n1|café|0.5\n2|thé|1.5\n", "read as: delimiter |"),
        ("a;name;y\n1;café;0,5\n2;thé;1,5\n", "read as: delimiter ;, decimal comma"),
        ('a,name,y\n1,café,"0,5"\n2,thé,"1,5"\n', "read as: decimal comma"),
        ("\ufeffa,name,y\n1,café,0.5\n2,thé,1.5\n", None),
        ("a,name,y\n1,café,0.5\n2,thé,1.5\n".encode("latin-1"), "read as: latin-1"),
        ("a,name,y\n1,café,0.5\n2,thé,1.5\n".encode("utf-16"), "read as: utf-16"),
        ("a,name,y\n1,café,0.5\n2,thé,1.5\n".encode("utf-16-be"), "read as: utf-16-be"),
        ("# a logger\n# made it\na,name,y\n1,café,0.5\n# pause\n2,thé,1.5\n",
         "read as: lines that begin with # left out"),
        ("sep=;\na;name;y\n1;café;0.5\n2;thé;1.5\n", "read as: delimiter ;, the line sep= left out"),
        ("'a','name','y'\n1,'café',0.5\n2,'thé',1.5\n", "read as: quote '"),
        ("a,name,y\r\n1,café,0.5\r\n\r\n2,thé,1.5\r\n", None),
        ("a,name,y\r1,café,0.5\r2,thé,1.5", None),
        ('"a" , "name" , "y"\n'.replace(" ", "") + '"1","café","0.5"\n2,thé,"1.5"', None),
        (" a, name ,y\n1,café,0.5\n2,thé,1.5\n", None),
        ("a,name,y,\n1,café,0.5,\n2,thé,1.5,\n", "column 4 has neither a name nor cells: left out"),
        (gzip.compress("a,name,y\n1,café,0.5\n2,thé,1.5\n".encode()), "read as: gzip"),
        (pa.Codec("zstd").compress("a,name,y\n1,café,0.5\n2,thé,1.5\n".encode(), asbytes=True), "read as: zstd"),
    ],
    ids=range(20),
)  # fmt: skip
def test_one_table_in_many_dialects(content: str | bytes, note: str | None, tmp_path: Path) -> None:
    table = read(tmp_path / "d.csv", content)
    assert columns(table) == PLAIN
    assert list(table.notes) == ([] if note is None else [note])
    assert table.lines is not None
    text = content if isinstance(content, str) else "a,name,y\n1,\n2,"
    seen = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert [seen[line - 1].lstrip('"')[0] for line in table.lines[:]] == ["1", "2"]


@pytest.mark.parametrize("name", ["d.tsv", "d.tsv.gz", "d.csv.zst"])
def test_a_name_may_say_the_delimiter_and_the_compression(name: str, tmp_path: Path) -> None:
    content = "a\tname\ty\n1\tcafé\t0.5\n2\tthé\t1.5\n".encode()
    packed = gzip.compress(content) if name.endswith("gz") else content
    table = read(tmp_path / name, packed)
    assert columns(table) == PLAIN
    assert list(table.notes) == {"d.tsv": [], "d.tsv.gz": ["read as: gzip"]}.get(name, ["read as: delimiter tab"])


def test_what_is_given_is_not_found(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    table = read(path, "a,b;c\n1,5;3\n", delimiter=";")
    assert (columns(table), table.notes) == ({"a,b": [1.5], "c": [3]}, ("read as: decimal comma",))
    assert columns(read(path, "a;b\n1,234;2\n", decimal=",")) == {"a": [1.234], "b": [2]}
    assert columns(read(path, "a;b\n1,234;2\n", thousands=",")) == {"a": [1234], "b": [2]}
    assert columns(read(path, "a;b\n1.234;2,5\n", thousands=".", decimal=",")) == {"a": [1234], "b": [2.5]}
    assert columns(read(path, "a;b\n1 234;2\n", thousands=" ")) == {"a": [1234], "b": [2]}
    assert columns(read(path, "a;b\n1.234;2,5\n", decimal=".")) == {"a": [1.234], "b": ["2,5"]}
    assert columns(read(path, "%x\na,b\n1,2\n%1,2\n3,4\n", comment="%")) == {"a": [1, 3], "b": [2, 4]}
    assert columns(read(path, "#a,b\n1,2\n#3,4\n", comment="")) == {"#a": ["1", "#3"], "b": [2, 4]}
    assert columns(read(path, "a,b\nж,1\n".encode("koi8-r"), encoding="koi8-r")) == {"a": ["ж"], "b": [1]}
    assert columns(read(path, "5,1\n4,2\n", header=False)) == {"c0": [5, 4], "c1": [1, 2]}
    assert columns(read(path, "0,1\n4,2\n", header=True)) == {"0": [4], "1": [2]}
    assert columns(read(path, "a b\n1 2\n", delimiter=" ")) == {"a": [1], "b": [2]}


def test_without_a_header_the_names_of_the_columns_are_said(tmp_path: Path) -> None:
    table = read(tmp_path / "d.csv", "5,1,x\n", header=False)
    assert table.notes == ("the columns are called c0 to c2, since the file has no line of names",)
    assert table.lines is not None
    assert table.lines[0] == 1


NUMBERS = {
    "1.234,5": ("1.234,5\n2.234,5", [1234.5, 2234.5], "decimal comma, thousands point"),
    "1.234.567": ("1.234.567\n7", [1234567, 7], "decimal comma, thousands point"),
    "0,5": ("0,5\n12,25", [0.5, 12.25], "decimal comma"),
    "1234,567": ("1234,567\n,5", [1234.567, 0.5], "decimal comma"),
    "1'234.5": ("1'234.5\n2.5", [1234.5, 2.5], "thousands '"),
    "1 234,5": ("1\u202f234,5\n1 000,0", [1234.5, 1000.0], "decimal comma, thousands space"),
    "1,234.5": ("1,234.5\n1,000", [1234.5, 1000.0], "thousands comma"),
    "-1,5e3": ("-1,5e3\nNA", [-1500.0, None], "decimal comma"),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_of_other_countries(kind: str, tmp_path: Path) -> None:
    cells, values, said = NUMBERS[kind]
    table = read(tmp_path / "d.csv", "a;b\n" + "".join(f"{cell};x\n" for cell in cells.split("\n")))
    assert columns(table)["a"] == values
    assert table.notes == (f"read as: delimiter ;, {said}",)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a,b;c\n1,5;3\n",
         'its lines can be divided by , (2 cells) and ; (2 cells); write data.csv: {delimiter: ","} or '
         '{delimiter: ";"}'),
        ("a\n1,5\n", 'line 2 has 2 cells, the header has 1; if , is the decimal sign, write data.csv: {delimiter: ";", '
         'decimal: ","}'),
        ('a,b\n"1,234",2\n',
         "'1,234' in column 'a' can be read in more than one way; write data.csv: {decimal: \",\"} or "
         'data.csv: {decimal: ".", thousands: ","}'),
        ("a;b\n1,5;2.5\n2;3\n",
         "the numbers of column 'a', such as '1,5', are written in another way than those of column "
         "'b'; write data.csv: {decimal: ','} or {decimal: '.'}, with thousands if the numbers have them"),
        ("a;b\n1,5;1.000\n2;3\n",
         "the numbers of column 'a', such as '1,5', are written in another way than those of column "
         "'b'; write data.csv: {decimal: ','} or {decimal: '.'}, with thousands if the numbers have them"),
        ("5.1,3.5,setosa\n4,3,virginica\n", "line 1 looks like data, not like names: 5.1, 3.5, setosa; write data.csv: "
         "{header: false} if the file has no line of names (its columns are then called c0, c1, …), {header: true} if "
         "these are names"),
        ("#a,b\n1,2\n",
         "line 1 begins with # and has as many cells as the line after it; write data.csv: {comment: '#'} if "
         "it is a comment, {comment: ''} if it names the columns"),
        ("# c\na,b\n1,2\n#f00,3\n",
         "line 4 begins with # and has as many cells as a row; write data.csv: {comment: '#'} if "
         "it is a comment, {comment: ''} if it is a row"),
        ("a,b\n'x',1\n'y',2\n", "some cells stand in '…'; write data.csv: {quote: \"'\"} if ' is the quote, "
         "{quote: '\"'} if it belongs to the texts"),
        (b"a,b\ncaf\xe9,1\n" + "é,2\n".encode(), "line 3 is in UTF-8, but others are not; give its encoding, such as "
         "data.csv: {encoding: latin-1}"),
    ],
    ids=range(10),
)  # fmt: skip
def test_what_is_not_clear_is_asked(content: str | bytes, expected: str, tmp_path: Path) -> None:
    assert problems(tmp_path / "d.csv", content) == [expected]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", ["is empty; it must hold a table"]),
        ("\n\n", ["holds no header and no rows; it must hold a table"]),
        ("a,a,b,b\n1,2,3,4\n", ["has several columns called 'a', 'b'; give each its own name"]),
        ("a,b,,c\n1,2,3,4\n", ["column 3 has no name; give it one in the first line"]),
        ('# c\na,b\n"x\ny",1\n1,2,3\n4\n',
         ["line 5 has 3 cells, the header has 2; quote texts in which , stands, or write "
         "data.csv: {delimiter: …} if another one divides the cells", "line 6 has 1 cell, the header has 2"]),
        ('a,b\n1,2\n\n3,"x\n4,y\n',
         ['line 4 begins a text with " that does not end; close it, or write data.csv: {quote: …} '
         "with another"]),
        ('a,b\n1,"x"y\n', ['line 2 goes on after a closing "; double a " in a text, or write data.csv: {quote: …} with '
         "another"]),
        (b"a,b\n1,x\n\n2,\x00y\n", ["line 4 has a null byte, so the file is damaged, or no text; mend it"]),
        (gzip.compress(b"a,b\n1,2\n")[:-4],
         ["cannot be decompressed: Truncated compressed stream; write the file again"]),
        ('a,"\n1,2\n3,4\n', ['line 1 begins a text with " that does not end; close it, or write data.csv: {quote: …} '
         "with another"]),
        (b"PK\x03\x04xl/", ["is a zip archive or an Excel file; unpack it, or save the sheet as CSV"]),
    ],
    ids=range(11),
)  # fmt: skip
def test_damage_is_named_with_its_line(content: str | bytes, expected: list[str], tmp_path: Path) -> None:
    assert problems(tmp_path / "d.csv", content) == expected


def test_many_problems_are_counted(tmp_path: Path) -> None:
    found = problems(tmp_path / "d.csv", "a,b\n" + "1\n" * 50)
    assert len(found) == 21
    assert found[-1] == "and 30 more lines with another number of cells"


@pytest.mark.parametrize(
    "late", ["x", "1.5", "", "NA", "true", "007", "2020-01-01", "é", "0x10", "12345678901234567890"]
)
@pytest.mark.parametrize("first", ["1", "1.5", "", "true", "x", "2020-01-01"])
def test_types_do_not_depend_on_where_a_cell_stands(first: str, late: str, tmp_path: Path) -> None:
    """Arrow reads blocks of 1 MiB; 4 MiB later another kind of cell comes."""
    many = 600_000 if first in ("1", "") else 50
    small = read(tmp_path / "s.csv", f"a,b\n{first},0\n{late},0\n")
    large = read(tmp_path / "l.csv", f"a,b\n{first},0\n" + f"{first},12345\n" * many + f"{late},0\n")
    assert small.columns["a"].type == large.columns["a"].type
    assert small.columns["a"].to_pylist() == [large.columns["a"][0].as_py(), large.columns["a"][-1].as_py()]


def test_keys_that_begin_with_zero_stay_texts(tmp_path: Path) -> None:
    table = read(tmp_path / "d.csv", "id,v,w\n007,0.5,10\n010,00.5,20\n")
    assert columns(table) == {"id": ["007", "010"], "v": [0.5, 0.5], "w": [10, 20]}
    assert table.notes == ("column 'id' is text, since its whole numbers begin with 0 or are too large",)


def test_texts_stay_as_they_are(tmp_path: Path) -> None:
    table = read(tmp_path / "d.csv", 'a,b\nNA, x\nnull,"say ""hi"", he said"\nnan,5" pipe\nz,\n')
    assert columns(table) == {"a": ["NA", "null", "nan", "z"], "b": [" x", 'say "hi", he said', '5" pipe', ""]}


def test_a_nameless_first_column_is_an_index(tmp_path: Path) -> None:
    table = read(tmp_path / "d.csv", ",a,y\n0,1,2\n1,3,4\n")
    assert (table.index, list(table.columns)) == (("Unnamed: 0",), ["Unnamed: 0", "a", "y"])
    assert table.notes == ("the first column has no name, so it is an index, called 'Unnamed: 0'",)
    assert read(tmp_path / "d.csv", "Unnamed: 0.1,Unnamed: 0,a\n0,1,2\n").index == ("Unnamed: 0.1", "Unnamed: 0")


def test_a_header_line_of_megabytes_is_read(tmp_path: Path) -> None:
    names = [f"a gene with a long name {k:0250}" for k in range(6000)]
    table = read(tmp_path / "d.csv", ",".join(names) + "\n" + ",".join(str(k) for k in range(6000)) + "\n")
    assert list(table.columns) == names
    assert table.columns[names[4321]].to_pylist() == [4321]


def test_lines_are_counted_in_every_part_of_a_large_file(tmp_path: Path) -> None:
    text = "a,b\r\n" + "\r\n".join(f"{'' if k % 7 == 0 else f'{k},{k}'}" for k in range(2, 700_000))
    table = read(tmp_path / "d.csv", text)
    assert table.lines is not None
    assert table.lines[:].tolist() == table.columns["a"].to_pylist()


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 5_000_000))
    assert path.stat().st_size < 100_000
    with pytest.raises(
        InvalidData, match=r"d\.csv\.gz: has .* bytes or more, at most 1,000,000 may be read, decompressed$"
    ):
        read_source(str(path), SourceRules(most_bytes=1_000_000))


def test_a_number_below_one_with_a_comma_is_never_a_thousand(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('a,y\n1e-05,"0,125"\n2e-05,"0,250"\n')
    found = read_source(str(path))
    assert isinstance(found, Table)
    assert found.columns["y"].to_pylist() == [0.125, 0.25]
