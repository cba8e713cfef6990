"""Upload the files that a job names: each content once. After a broken connection an upload continues where it was."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from cluster.client.connection import LONG_CALL_S, RETRY_S, Connection
from cluster.client.failures import TRANSIENT, error_of
from cluster.wire import pipetrain_pb2 as pb
from coordinator.job.source_names import extension, files_named, is_url
from coordinator.job.spec import JobSpec
from stages.errors import InvalidData, Refused

_CHUNK_BYTES = 2**20
_SLOWEST_BYTES_S = 2**16
"""An upload that is slower than this many bytes per second counts as hanging."""
_REPORT_EVERY_S = 0.1
_AGAIN = (
    *TRANSIENT,
    grpc.StatusCode.OUT_OF_RANGE,
)  # OUT_OF_RANGE: another client uploads the same content at the same time


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """The progress of the upload of one file, in bytes. The service had `before` bytes already, from another job or
    another try.

    The last progress is `complete`: the service has the whole file, and its checksum is right.
    """

    path: str
    done: int
    total: int
    before: int
    complete: bool = False


OnUpload = Callable[[Upload], None]


def local_files(spec: JobSpec) -> list[str]:
    """Return the files of this machine that a job names, with the names in the job."""
    return [name for name in named_files(spec) if _here(name).is_file()]


def named_files(spec: JobSpec) -> list[str]:
    """Return the files that a job names, on any machine: data, a schedule, a tokenizer, weights to begin with."""
    return [name for name in dict.fromkeys(files_named(spec.document()).values()) if not is_url(name)]


def upload_files(connection: Connection, spec: JobSpec, on_upload: OnUpload | None) -> dict[str, str]:
    """Upload each file that the service does not have. Return the SHA-256 of each file by its path in the job.

    Raises InvalidData for a file that cannot be read, Refused for a file that changes during its upload, NoService.
    """
    digests: dict[str, str] = {}
    brought: set[tuple[str, str]] = set()  # the service keeps each content once for each extension
    for name in local_files(spec):
        digest, size = _digest(_here(name))
        if (digest, extension(name)) not in brought:
            brought.add((digest, extension(name)))
            header = pb.UploadHeader(sha256=digest, size=size, extension=extension(name))
            _bring(connection, name, header, on_upload or (lambda upload: None))
        digests[name] = digest
    return digests


def _here(name: str) -> Path:
    with contextlib.suppress(RuntimeError):
        return Path(name).expanduser()
    return Path(name)


def _digest(path: Path) -> tuple[str, int]:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
            return digest.hexdigest(), file.tell()
    except OSError as error:
        raise InvalidData(f"{path}: cannot be read: {error.strerror}") from None


def _bring(connection: Connection, name: str, header: pb.UploadHeader, on_upload: OnUpload) -> None:
    """Ask the service how much of the file it has, and send the rest. Repeat this after a broken connection, for up to
    RETRY_S since the last progress."""
    before: int | None = None
    most, pauses = 0, connection.pauses(RETRY_S)
    while True:
        reached = 0
        try:
            there = _ask(connection, header)
            reached = there.received
            before = reached if before is None else before
            upload = partial(Upload, path=name, total=header.size, before=before)
            if not there.complete:
                there = _send(connection, _Rest(_here(name), header, reached), partial(_report, on_upload, upload))
            if not there.complete:
                raise Refused(f"{name}: the service has {there.received:,} of {header.size:,} bytes; submit it again")
            on_upload(upload(done=header.size, complete=True))
        except grpc.RpcError as failure:
            if not connection.may_return(failure, _AGAIN):
                raise _changed(name, header, failure) or error_of(failure, connection.address) from None
            if reached > most:
                most, pauses = reached, connection.pauses(RETRY_S)
            if not next(pauses, False):
                raise error_of(failure, connection.address) from None
        else:
            return


def _ask(connection: Connection, header: pb.UploadHeader) -> Any:
    """Ask how much of the content the service has."""
    requests = iter([_first(header, 0)])
    answer = connection.calls.UploadData(requests, timeout=LONG_CALL_S, metadata=connection.metadata)
    connection.answered = True
    return answer


def _report(on_upload: OnUpload, upload: Callable[..., Upload], done: int) -> None:
    on_upload(upload(done=done))


def _changed(name: str, header: pb.UploadHeader, failure: Any) -> Refused | None:
    """Return an error if the file changed during its upload, which explains a wrong checksum; None otherwise."""
    with contextlib.suppress(InvalidData):
        if failure.code() is grpc.StatusCode.DATA_LOSS and _digest(_here(name))[0] != header.sha256:
            return Refused(f"{name}: was changed while it was uploaded; submit it again when it is complete")
    return None


def _first(header: pb.UploadHeader, offset: int) -> pb.UploadRequest:
    return pb.UploadRequest(
        header=pb.UploadHeader(sha256=header.sha256, size=header.size, extension=header.extension, offset=offset)
    )


class _Rest:
    """The requests that send a file from an offset. gRPC's own thread takes them; other threads may read `sent`."""

    def __init__(self, path: Path, header: pb.UploadHeader, offset: int) -> None:
        self._path, self._header, self._offset = path, header, offset
        self.sent = offset
        self.problem: OSError | None = None

    @property
    def deadline_s(self) -> float:
        """The seconds that the slowest tolerated connection would need."""
        return LONG_CALL_S + (self._header.size - self._offset) / _SLOWEST_BYTES_S

    def requests(self) -> Iterator[pb.UploadRequest]:
        """Yield the header and the parts of the file. If the file cannot be read, they end, and `problem` has the
        error."""
        yield _first(self._header, self._offset)
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset, os.SEEK_SET)
                while self.sent < self._header.size and (part := file.read(_CHUNK_BYTES)):
                    yield pb.UploadRequest(data=part)
                    self.sent += len(part)
        except OSError as error:
            self.problem = error


def _send(connection: Connection, rest: _Rest, report: Callable[[int], None]) -> Any:
    """Send the file and report the progress. The calling thread only waits, so that Ctrl-C can interrupt it."""
    call = connection.calls.UploadData.future(rest.requests(), timeout=rest.deadline_s, metadata=connection.metadata)
    ended = threading.Event()
    call.add_done_callback(lambda _: ended.set())
    try:
        while not ended.wait(_REPORT_EVERY_S):
            report(rest.sent)
        if rest.problem is not None:
            raise InvalidData(f"{rest._path}: cannot be read: {rest.problem.strerror}")
        return call.result()
    finally:
        call.cancel()
