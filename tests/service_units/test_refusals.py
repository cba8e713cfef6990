"""The errors that callers get if the service cannot use its store."""

from __future__ import annotations

import asyncio
import errno
import json
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from cluster.client.address import GIVEN, ServiceAddress
from cluster.client.connection import Connection
from cluster.client.failures import error_of
from cluster.dashboard.web import _error_response, _full
from cluster.service.problems import errors_as_status
from cluster.service.refusals import NoSpace, StoreDamaged, StoreUnwritable
from cluster.service.store_errors import trouble_of
from stages.errors import NoService, Refused

STORE = Path("/home/jobs.sqlite3")


class Aborted(grpc.RpcError):  # type: ignore[misc]
    """The end of a call, as its client sees it."""

    def __init__(self, code: Any, text: str, metadata: Any = ()) -> None:
        self._code, self._text, self._metadata = code, text, metadata

    def code(self) -> Any:
        return self._code

    def details(self) -> str:
        return self._text

    def trailing_metadata(self) -> Any:
        return list(self._metadata)


def answer(error: Exception) -> Aborted:
    """Return the end of a call in which this error is raised."""

    class Context:
        async def abort(self, code: Any, text: str, trailing_metadata: Any = ()) -> None:
            raise Aborted(code, text, trailing_metadata)

    async def call() -> None:
        async with errors_as_status(Context()):
            raise error

    with pytest.raises(Aborted) as caught:
        asyncio.run(call())
    return caught.value


def http(error: Exception) -> tuple[int, list[str]]:
    """Return the status and problems of an HTTP request in which this error is raised."""
    response = asyncio.run((_full if isinstance(error, OSError) else _error_response)(SimpleNamespace(), error))  # type: ignore[arg-type]
    return response.status_code, json.loads(bytes(response.body))["problems"]


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (NoSpace("no space left on device: x"), grpc.StatusCode.RESOURCE_EXHAUSTED, 507),
        (OSError(errno.ENOSPC, "No space left on device"), grpc.StatusCode.RESOURCE_EXHAUSTED, 507),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/x"), grpc.StatusCode.RESOURCE_EXHAUSTED, 507),
        (OSError(errno.EROFS, "Read-only file system", "/x"), grpc.StatusCode.UNAVAILABLE, 503),
        (OSError(errno.EIO, "Input/output error"), grpc.StatusCode.UNAVAILABLE, 503),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/x"), grpc.StatusCode.UNAVAILABLE, 503),
        (OSError(errno.EINVAL, "is a fifo, must be a regular file", "/x"), grpc.StatusCode.UNAVAILABLE, 503),
        (StoreUnwritable("the home was moved"), grpc.StatusCode.UNAVAILABLE, 503),
        (StoreDamaged("x is damaged"), grpc.StatusCode.DATA_LOSS, 503),
    ],
)
def test_it_is_no_mistake_of_the_service_and_the_client_says_the_same(error: Exception, code: Any, status: int) -> None:
    found = answer(error)
    assert found.code() is code
    if not isinstance(error, OSError):
        assert found.details().startswith(str(error))
    elif code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        assert found.details().startswith("no space left on device")
    else:
        assert found.details() == f"{error.filename or 'the home of the service'}: {(error.strerror or '').lower()}"
    assert "mistake" not in found.details()
    got, problems = http(error)
    assert (got, problems) == (status, [found.details()])
    address = ServiceAddress(target="h:1", token="t", source=GIVEN, token_source=GIVEN, home=Path("/"))
    shown = error_of(found, address)
    assert isinstance(shown, Refused)
    assert str(shown) == found.details()


def test_a_service_that_cannot_now_is_another_thing_than_none() -> None:
    address = ServiceAddress(target="127.0.0.1:1", token="t", source=GIVEN, token_source=GIVEN, home=Path("/"))
    connection = Connection(lambda: address)
    connection.answered = True
    gone = Aborted(grpc.StatusCode.UNAVAILABLE, "connection refused")
    assert isinstance(error_of(gone, address), NoService)
    assert connection.may_return(gone)
    assert not connection.may_return(answer(StoreUnwritable("the home was moved"))), "the refusal comes at once"
    connection.close()


def _sqlite(name: str, text: str) -> sqlite3.Error:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = getattr(sqlite3, name)
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (_sqlite("SQLITE_FULL", "database or disk is full"), NoSpace),
        (sqlite3.OperationalError("database or disk is full"), NoSpace),
        (_sqlite("SQLITE_IOERR_WRITE", "disk I/O error"), StoreUnwritable),
        (_sqlite("SQLITE_READONLY", "attempt to write a readonly database"), StoreUnwritable),
        (_sqlite("SQLITE_CORRUPT", "database disk image is malformed"), StoreDamaged),
        (_sqlite("SQLITE_NOTADB", "file is not a database"), StoreDamaged),
        (OSError(errno.ENOSPC, "No space left on device"), NoSpace),
        (sqlite3.IntegrityError("UNIQUE constraint failed"), None),
        (sqlite3.ProgrammingError("Error binding parameter 3"), None),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), None),
        (OverflowError("Python int too large"), None),
    ],
)
def test_what_is_the_stores_trouble_and_what_is_the_changes(error: BaseException, kind: type[Exception] | None) -> None:
    found = trouble_of(error, STORE)
    assert type(found) is (kind or type(None))
    assert found is None or str(STORE) in str(found)
