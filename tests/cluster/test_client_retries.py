"""The client with a service that fails, breaks calls off and comes back: a scripted one, in this process."""

from __future__ import annotations

import fcntl
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from cluster.client import Client, Upload, connection
from cluster.wire import pipetrain_pb2 as pb
from cluster.wire.convert import row_to_wire
from stages.errors import InvalidJob, NoService, PipetrainError, Refused, UnknownJob
from tests.jobs import digits_job

Code = grpc.StatusCode
ROWS = [
    {"kind": "step", "step": k, "epoch": 1, "samples": 4, "loss": 1.0, "seconds": 0.1, "grad_norm": 1.0}
    | {"learning_rate": 0.1, "bubble": 0.5}
    for k in range(1, 21)
]


@contextmanager
def held(home: Path) -> Iterator[None]:
    """Hold the home's lock, as a service does while it is up."""
    with (home / "service.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Scripted:
    """A service that records its requests, and breaks calls off as scripted."""

    def __init__(self) -> None:
        self.submissions: list[str] = []
        self.uploaded = b""
        self.offsets: list[int] = []
        self.breaks: list[Any] = []  # what ends the next calls: a status code, or a number of messages
        self.tokens: set[str] = set()
        self.until_now: list[bool] = []  # `until_now` of each call of Watch

    def Submit(self, request: pb.SubmitRequest, context: Any) -> pb.Job:
        self.tokens.add(dict(context.invocation_metadata())["authorization"])
        self.submissions.append(request.submission_id)
        self._break(context)
        return pb.Job(id="k7x2", name="digits", state=pb.QUEUED, submission_id=request.submission_id)

    def Get(self, request: pb.GetRequest, context: Any) -> pb.Job:
        self._break(context)
        return pb.Job(id="k7x2", name="digits", state=pb.SUCCEEDED, traceback="only from Get")

    def Watch(self, request: pb.WatchRequest, context: Any) -> Iterator[pb.WatchUpdate]:
        self.until_now.append(request.until_now)
        yield from self._breaking(self._updates(int(request.cursor or 0)), context)

    def Logs(self, request: pb.LogsRequest, context: Any) -> Iterator[pb.LogChunk]:
        chunks = [pb.LogChunk(worker=k % 3 - 1, text=f"{k} a\r\n{k} b\n".encode()) for k in range(12)]
        yield from self._breaking(chunks, context)

    def UploadData(self, requests: Iterator[pb.UploadRequest], context: Any) -> pb.UploadResponse:
        header = next(requests).header
        self.offsets.append(header.offset)
        for part in self._breaking(requests, context):
            assert header.offset <= len(self.uploaded)
            self.uploaded += part.data
        complete = sha256(self.uploaded).hexdigest() == header.sha256
        return pb.UploadResponse(received=len(self.uploaded), complete=complete)

    @staticmethod
    def _updates(place: int) -> Iterator[pb.WatchUpdate]:
        yield pb.WatchUpdate(cursor=str(place), job=pb.Job(id="k7x2", state=pb.RUNNING))
        for k in range(place, len(ROWS)):
            events = [pb.Event(seq=k + 1, kind="something", details="{}")]
            yield pb.WatchUpdate(cursor=str(k + 1), rows=[row_to_wire(ROWS[k], 1)], events=events)
        yield pb.WatchUpdate(cursor=str(len(ROWS)), job=pb.Job(id="k7x2", state=pb.SUCCEEDED, exit_code=0))

    def _break(self, context: Any) -> None:
        if self.breaks:
            self._abort(context, self.breaks.pop(0))

    def _breaking(self, messages: Any, context: Any) -> Iterator[Any]:
        left = self.breaks.pop(0) if self.breaks else None
        for message in messages:
            if left is not None and not isinstance(left, int):
                self._abort(context, left)
            if left == 0:
                self._abort(context, Code.UNAVAILABLE)
            left = None if left is None else left - 1
            yield message

    def _abort(self, context: Any, code: Any) -> NoReturn:
        context.abort(code, f"told to: {code.name}")
        raise AssertionError("abort raises")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Scripted, Client]]:
    monkeypatch.setattr("cluster.client.connection.random.uniform", lambda low, high: 0.01)  # short pauses
    scripted = Scripted()
    server = grpc.server(futures.ThreadPoolExecutor(8))
    methods = {
        "Submit": grpc.unary_unary_rpc_method_handler(scripted.Submit, pb.SubmitRequest.FromString, _bytes),
        "Get": grpc.unary_unary_rpc_method_handler(scripted.Get, pb.GetRequest.FromString, _bytes),
        "Watch": grpc.unary_stream_rpc_method_handler(scripted.Watch, pb.WatchRequest.FromString, _bytes),
        "Logs": grpc.unary_stream_rpc_method_handler(scripted.Logs, pb.LogsRequest.FromString, _bytes),
        "UploadData": grpc.stream_unary_rpc_method_handler(scripted.UploadData, pb.UploadRequest.FromString, _bytes),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("pipetrain.v1.Pipetrain", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with Client(f"127.0.0.1:{port}", token="a-token") as client:
        yield scripted, client
    server.stop(None)


def _bytes(message: Any) -> bytes:
    serialised: bytes = message.SerializeToString()
    return serialised


Service = tuple[Scripted, Client]


def test_a_submission_that_broke_off_is_sent_again_under_the_same_id(service: Service) -> None:
    scripted, client = service
    scripted.breaks = [Code.UNAVAILABLE, Code.UNAVAILABLE]
    assert client.submit(digits_job()).submission_id == scripted.submissions[0]
    assert len(scripted.submissions) == 3
    assert len(set(scripted.submissions)) == 1
    assert scripted.tokens == {"Bearer a-token"}
    assert client.submit(digits_job()).submission_id not in scripted.submissions[:3]
    assert client.submit(digits_job(), submission_id="mine").submission_id == "mine"


@pytest.mark.parametrize("breaks", [[], [0], [1, 0, 0], [5, 1, 7], [3] * 9, [Code.CANCELLED, 4]], ids=str)
def test_no_row_and_no_event_is_lost_or_doubled_by_breaks(service: Service, breaks: list[Any]) -> None:
    scripted, client = service
    job = client.submit(digits_job())
    scripted.breaks = [*breaks]
    told: list[PipetrainError] = []
    updates = list(job.watch(on_break=told.append))
    assert [row.step for update in updates for row in update.rows] == list(range(1, 21))
    assert [event.seq for update in updates for event in update.events] == list(range(1, 21))
    assert bool(told) == bool(breaks)
    assert (job.state, job.traceback) == ("SUCCEEDED", "only from Get")


def test_iterating_and_waiting_end_with_the_job(service: Service) -> None:
    scripted, client = service
    job = client.submit(digits_job())
    assert [row.step for row in job] == [row.step for row in job.steps()] == list(range(1, 21))
    assert list(job.evaluations()) == []
    assert [row.step for row in job.rows()] == list(range(1, 21))
    assert [event.seq for event in job.events()] == list(range(1, 21))
    assert scripted.until_now == [False, False, False, True, True]
    assert job.wait(check=True) is job
    assert job.wait(timeout=0) is job, "it has ended, so there is nothing to wait for"


def test_a_service_that_stays_away_is_told_after_the_patience(service: Service) -> None:
    scripted, client = service
    job = client.submit(digits_job())
    scripted.breaks = [0] * 100_000
    began = time.monotonic()
    with pytest.raises(NoService):
        job.wait(patience=0.5)
    assert time.monotonic() - began < 30, "as many breaks take much longer"


def _silent(context: Any) -> Iterator[pb.WatchUpdate]:
    """Send the present state, and then nothing."""
    yield pb.WatchUpdate(job=pb.Job(id="k7x2", state=pb.RUNNING))
    ended = threading.Event()
    if context.add_callback(ended.set):  # else the client has gone already
        ended.wait(30)


def test_what_there_is_so_far_is_told_whole_or_not_at_all(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted, client = service
    job = client.submit(digits_job())
    scripted.breaks = [3]
    with pytest.raises(NoService):
        list(job.rows())
    monkeypatch.setattr("cluster.client.streams._SILENCE_S", 0.2)
    monkeypatch.setattr(scripted, "_breaking", lambda updates, context: _silent(context))
    with pytest.raises(NoService, match="sent nothing for 0"):
        job.events()


def test_waiting_has_an_end(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted, client = service
    job = client.submit(digits_job())

    monkeypatch.setattr(scripted, "_breaking", lambda updates, context: _silent(context))
    with pytest.raises(TimeoutError, match="k7x2 has not ended within"):
        job.wait(timeout=2.0)  # time enough for the first message
    assert job.state == "RUNNING"


@pytest.mark.parametrize("breaks", [[], [3], [5, 5, 7], [0, 0]], ids=str)
def test_no_line_of_a_log_is_lost_or_doubled_by_breaks(service: Service, breaks: list[int]) -> None:
    scripted, client = service
    job = client.submit(digits_job())
    scripted.breaks = [*breaks]
    expected = [(k % 3 - 1, f"{k} {part}") for k in range(12) for part in ("a\r", "b")]
    assert list(job.logs(follow=True)) == expected


@pytest.mark.parametrize("breaks", [[], [None, 2], [None, 1, None, 2], [None, 0, None, 1, None, 1]], ids=str)
def test_an_upload_goes_on_where_it_broke_off(service: Service, breaks: list[int | None], tmp_path: Path) -> None:
    scripted, client = service
    content = bytes(range(256)) * 20_000  # five parts
    (tmp_path / "rows.npz").write_bytes(content)
    document = digits_job().document()
    document["data"]["source"] = str(tmp_path / "rows.npz")
    scripted.breaks = [*breaks]  # None: the call that queries how much is there
    told: list[Upload] = []
    client.submit(document, on_upload=told.append)
    assert scripted.uploaded == content
    sent_from = scripted.offsets[1::2]  # the calls between them only query
    assert sent_from == sorted(sent_from)
    assert sent_from[-1] == 2**20 * sum(n or 0 for n in breaks)
    last = told[-1]
    assert (last.done, last.total, last.before, last.complete) == (len(content), len(content), 0, True)
    assert not any(upload.complete for upload in told[:-1])
    client.submit(document, on_upload=told.append)
    assert (told[-1].before, told[-1].complete) == (len(content), True)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Code.INVALID_ARGUMENT, InvalidJob),
        (Code.NOT_FOUND, UnknownJob),
        (Code.RESOURCE_EXHAUSTED, Refused),
        (Code.FAILED_PRECONDITION, Refused),
        (Code.ABORTED, Refused),
        (Code.ALREADY_EXISTS, Refused),
        (Code.DATA_LOSS, Refused),
        (Code.UNAUTHENTICATED, NoService),
        (Code.DEADLINE_EXCEEDED, NoService),
        (Code.INTERNAL, PipetrainError),
        (Code.UNIMPLEMENTED, Refused),
    ],
    ids=lambda value: getattr(value, "name", getattr(value, "__name__", "")),
)
def test_each_status_code_is_an_error_of_ours_in_one_line(
    service: Service, code: Any, kind: type[PipetrainError]
) -> None:
    scripted, client = service
    scripted.breaks = [code]
    with pytest.raises(PipetrainError) as caught:
        client.get("k7x2")
    assert type(caught.value) is kind
    assert len(str(caught.value).splitlines()) == 1


def test_every_problem_of_a_job_comes_back(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted, client = service
    lines = ["seed: got -1, must be at least 0", "name: missing"]

    def refuse(context: Any, code: Any) -> NoReturn:
        request = error_details_pb2.BadRequest()
        for line in lines:
            request.field_violations.add(field=line.partition(":")[0], description=line)
        detail = any_pb2.Any()
        detail.Pack(request)
        status = status_pb2.Status(code=code.value[0], message="2 problems", details=[detail])
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(code, "2 problems")
        raise AssertionError("abort raises")

    monkeypatch.setattr(scripted, "_abort", refuse)
    scripted.breaks = [Code.INVALID_ARGUMENT]
    with pytest.raises(InvalidJob) as caught:
        client.submit(digits_job())
    assert caught.value.problems == tuple(lines)


def test_a_service_that_comes_back_at_another_port_is_found(tmp_path: Path) -> None:
    """With `--grpc-port 0` a service that is started again has another port, which its home has."""

    def serve(answer: Callable[[], pb.WatchUpdate], breaks: bool) -> Any:
        def watch(request: pb.WatchRequest, context: Any) -> Iterator[pb.WatchUpdate]:
            yield answer()
            if breaks:
                started.append(serve(lambda: pb.WatchUpdate(job=pb.Job(id="k", state=pb.STOPPED)), False))
                context.abort(Code.UNAVAILABLE, "Socket closed")

        server = grpc.server(futures.ThreadPoolExecutor(2))
        methods = {
            "Get": grpc.unary_unary_rpc_method_handler(
                lambda request, context: pb.Job(id="k", state=pb.STOPPED), pb.GetRequest.FromString, _bytes
            ),
            "Watch": grpc.unary_stream_rpc_method_handler(watch, pb.WatchRequest.FromString, _bytes),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("pipetrain.v1.Pipetrain", methods),))
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        (tmp_path / "service.json").write_text(json.dumps({"grpc": address}))
        return server

    started: list[Any] = []
    started.append(serve(lambda: pb.WatchUpdate(job=pb.Job(id="k", state=pb.RUNNING)), True))
    with held(tmp_path), Client(home=tmp_path) as client:
        before = client.address
        job = client.get("k")
        assert [update.job.state for update in job.watch()] == ["RUNNING", "STOPPED"]
        assert client.address != before
    for server in started:
        server.stop(None)


def test_nothing_is_sent_to_the_port_of_a_service_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user may listen there now, to get the token."""
    monkeypatch.setattr(connection, "RETRY_S", 0.3)
    sent: list[str] = []

    class Thief(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
        def service(self, details: Any) -> Any:
            sent.append(details.method)
            return grpc.unary_unary_rpc_method_handler(lambda request, context: b"")

    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Thief()])
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        (tmp_path / "service.json").write_text(json.dumps({"grpc": address}))
        (tmp_path / "token").write_text("a-token")
        with held(tmp_path):
            client = Client(home=tmp_path)
            client.cluster()
        assert len(sent) == 1, "it is sent to a service that is up"
        with client, pytest.raises(NoService, match=f"no service answers at {address}"):
            client.cluster()
        with pytest.raises(NoService, match=f"no service answers at {address}"):
            Client(home=tmp_path)
        assert len(sent) == 1
    finally:
        server.stop(None)
