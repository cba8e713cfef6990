"""Rules for a job's data: protocols, folders, addresses; and Arrow never reads a Python object."""

from __future__ import annotations

import functools
import http.server
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from cluster.data.files import read_source
from cluster.data.rules import SourceRules, is_public
from cluster.service.peers import is_remote_address, is_remote_peer
from coordinator.job.spec import parse_job
from stages.errors import InvalidData, InvalidJob
from tests.coordinator.job_documents import changed
from tests.examples import examples

CHAINED = "chained URLs (with ::) are not read, since one of them decides what the next one does"


def refusal(source: str | Path, **rules: Any) -> str:
    with pytest.raises(InvalidData) as caught:
        read_source(str(source), SourceRules(**rules))
    (line,) = caught.value.problems
    return line


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "rows.csv"
    path.parent.mkdir()
    path.write_text("a,b\n1,2\n")
    return path


# names ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("reference://x.csv", "a URL begins with file://, http://, https://, "),
        ("memory://x.csv", "a URL begins with file://"),
        ("REFERENCE://x.csv", "a URL begins with file://"),
        ("reference://::http://example.org/x.csv", CHAINED),
        ("zip::http://example.org/x.csv", CHAINED),
        ("simplecache::s3://bucket/x.csv", CHAINED),
        ("http://example.org/x::file:///etc/x.csv", CHAINED),
        ("s3://bucket/a::b.csv", CHAINED),
        ("file://host/x.csv", "file:// is followed by an absolute path"),
    ],
)
def test_only_listed_protocols_without_chains_are_taken(source: str, hint: str) -> None:
    for entry in ("data.source", "data.validation"):
        with pytest.raises(InvalidJob) as caught:
            parse_job(changed(entry, source))
        (line,) = caught.value.problems
        assert line.startswith(f"{entry}: got {source!r}, must be ")
        assert hint in line
    assert hint in refusal(source)


def test_an_ipv6_address_is_no_chain() -> None:
    assert parse_job(changed("data.source", "http://[2001:db8::1]:80/x.csv")).data.source.startswith("http://[")


# the operator's limits -----------------------------------------------------------------------------------------------


def test_files_are_read_below_the_folders_only_wherever_links_lead(rows: Path, tmp_path: Path) -> None:
    folder = str(rows.parent)
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    (rows.parent / "link.csv").symlink_to(tmp_path / "secret.csv")
    (tmp_path / "other").symlink_to(rows.parent)
    (tmp_path / "inside.csv").symlink_to(rows)
    (tmp_path / "in-beside").mkdir()
    (tmp_path / "in-beside" / "x.csv").write_text("a,b\n1,2\n")
    for good in (rows, tmp_path / "inside.csv", tmp_path / "other" / "rows.csv", f"file://{rows}"):
        assert read_source(str(good), SourceRules(roots=(folder,)))
        assert read_source(str(good), SourceRules(roots=(str(tmp_path / "other"),)))
    outside = [rows.parent / "link.csv", tmp_path / "secret.csv", tmp_path / "in-beside" / "x.csv"]
    for bad in (
        *map(str, outside),
        f"{folder}/../secret.csv",
        f"{folder}/../nothing.csv",
        f"file://{folder}/../secret.csv",
    ):
        wanted = f"local files are read only below {folder} by this service"
        assert refusal(bad, roots=(folder,)).endswith(wanted)


def test_uploaded_files_are_read_wherever_they_are(rows: Path) -> None:
    rules = SourceRules(roots=("/nowhere",), protocols=("https",)).with_files([str(rows)])
    assert read_source(str(rows), rules)
    assert read_source(str(rows), SourceRules.from_dict(rules.as_dict()))


def test_a_file_that_is_put_in_place_of_the_checked_one_is_refused(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is replaced between the check of its path and its opening."""
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    stat = os.stat

    def swap(path: Any, *rest: Any, **more: Any) -> os.stat_result:
        if path == str(rows):
            rows.unlink(missing_ok=True)
            rows.symlink_to(tmp_path / "secret.csv")
        return stat(path, *rest, **more)

    monkeypatch.setattr("coordinator.job.regular_files.os.stat", swap)
    assert "local files are read only below" in refusal(rows, roots=(str(rows.parent),))


def test_protocols_are_narrowed(rows: Path) -> None:
    assert refusal(rows, protocols=("https", "s3")) == f"{rows}: file is not read by this service, only https, s3"
    assert refusal("http://example.org/x.csv", protocols=("https",)).endswith(
        "http is not read by this service, only https"
    )


# addresses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.8.9.1", "::1", "0.0.0.0", "0.1.2.3", "::", "169.254.169.254", "169.254.0.1", "fe80::1",
     "fe80::1%eth0", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::",
     "100.100.100.200", "168.63.129.16", "fd00:ec2::254", "224.0.0.1", "ff02::1", "nonsense"],
)  # fmt: skip
def test_addresses_of_this_machine_and_its_links_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["10.0.0.1", "192.168.1.1", "172.17.0.1", "8.8.8.8", "2001:db8::1", "fd12::1"])
def test_other_addresses_are(address: str) -> None:
    assert is_public(address)


class _Server(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
        elif self.path.startswith("/broken/"):
            self.send_error(503)
        else:
            super().do_GET()

    do_HEAD = do_GET


@pytest.fixture
def port(rows: Path) -> Iterator[int]:
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Server, directory=rows.parent)
    ) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running.server_port
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "127.1", "2130706433"])
def test_a_job_from_elsewhere_reads_nothing_of_this_machine(host: str, port: int) -> None:
    url = f"http://{host}:{port}/rows.csv"
    assert read_source(f"http://127.0.0.1:{port}/rows.csv")
    told = refusal(url, public_only=True)
    assert told.startswith(f"{url}: ")
    assert host in ("127.1", "2130706433") or "may not read from addresses of this machine" in told


def test_a_name_that_leads_here_and_a_redirect_are_found_when_they_are_followed(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's own address counts as public here, the one to which it redirects does not."""
    monkeypatch.setattr("cluster.data.urls.is_public", lambda address: address == "127.0.0.1")
    wanted = f"http://127.0.0.2:{port}/rows.csv"
    assert read_source(f"http://localhost:{port}/rows.csv", SourceRules(public_only=True))
    assert "leads to 127.0.0.2; " in refusal(f"http://127.0.0.1:{port}/to/{wanted}", public_only=True)


def test_a_redirect_does_not_change_the_protocol_to_one_that_is_not_read(port: int) -> None:
    url = f"http://127.0.0.1:{port}/to/https://127.0.0.1:1/rows.csv"
    assert "leads to https://, which this service does not read" in refusal(url, protocols=("http",))


def test_what_kept_us_from_a_url_is_told(port: int) -> None:
    """The error was once "no such file", and users searched for the file."""
    assert refusal(f"http://127.0.0.1:{port}/nothing.csv").endswith("/nothing.csv: no such file")
    assert refusal(f"http://127.0.0.1:{port}/broken/x.csv").endswith(
        "cannot be read: its server answers 503 Service Unavailable"
    )
    with socket.create_server(("127.0.0.1", 0)) as closed:
        free = closed.getsockname()[1]
    assert "cannot be read: " in (told := refusal(f"http://127.0.0.1:{free}/x.csv"))
    assert "onnect" in told


def test_a_large_answer_is_not_taken_in(port: int) -> None:
    assert refusal(f"http://127.0.0.1:{port}/rows.csv", most_bytes=5).endswith("at most 5 may be read")


@pytest.mark.parametrize(
    ("peer", "remote"),
    [("ipv4:127.0.0.1:4711", False), ("ipv6:[::1]:4711", False), ("ipv6:%5B::1%5D:4711", False), ("unix:/run/x", False),
     ("ipv6:[::ffff:127.0.0.1]:1", False), ("ipv4:10.0.0.7:4711", True), ("ipv6:[2001:db8::1]:1", True), ("", True)],
)  # fmt: skip
def test_callers_from_another_host_are_told_from_ours(peer: str, remote: bool) -> None:
    assert is_remote_peer(peer) is remote


def test_an_unknown_caller_may_be_anywhere() -> None:
    assert [is_remote_address(host) for host in (None, "", "testclient", "127.0.0.1")] == [True, True, True, False]


# files ---------------------------------------------------------------------------------------------------------------


def test_a_fifo_and_a_device_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.csv")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    assert refusal(tmp_path / "fifo.csv").endswith("fifo.csv: cannot be read: is a fifo, must be a regular file")
    assert refusal(tmp_path / "zero.csv").endswith("zero.csv: cannot be read: is a device, must be a regular file")


def test_arrow_never_reads_an_object_of_python(rows: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow's threads abort the process if they release a Python object while the interpreter shuts down."""
    given: list[Any] = []
    read_csv, parquet_file = csv.read_csv, parquet.ParquetFile
    monkeypatch.setattr(csv, "read_csv", lambda file, **how: given.append(file) or read_csv(file, **how))  # type: ignore[func-returns-value]
    monkeypatch.setattr(parquet, "ParquetFile", lambda file, **how: given.append(file) or parquet_file(file, **how))  # type: ignore[func-returns-value]
    parquet.write_table(pa.table({"a": [1], "b": [2]}), rows.with_suffix(".parquet"))
    for name in ("rows.csv", "rows.parquet"):
        read_source(str(rows.parent / name))
        read_source(f"http://127.0.0.1:{port}/{name}")
    assert {type(file) for file in given} == {pa.OSFile, pa.BufferReader}


def test_a_command_that_reads_a_table_ends_well_each_time(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b,c\n" + "0.5,1.5,2\n" * 20_000)
    times = examples(3, 10)
    script = f"from cluster.data.files import read_source; read_source({str(path)!r})"
    assert [subprocess.run([sys.executable, "-c", script], check=False).returncode for _ in range(times)] == [0] * times
