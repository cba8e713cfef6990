"""The interface: correct answers to valid calls, and reasons for errors."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.actors.host_processes import command_line, in_session
from cluster.client import Client
from cluster.wire import pipetrain_pb2 as pb
from coordinator.job.spec import parse_job
from coordinator.train.rows import Row
from stages.errors import InvalidJob, Refused, UnknownJob
from tests.coordinator.job_documents import LARGEST, changed
from tests.examples import examples
from tests.service.conftest import MOST_QUEUED, JobMaker
from tests.service.running import Service, steps, until
from tests.service.wire import Wire, upload


@pytest.fixture(scope="module")
def wire(service: Service) -> Wire:
    return Wire(service)


def _document(small: JobMaker, epochs: int = 1, **changes: Any) -> str:
    return json.dumps(parse_job(small(epochs, **changes)).document())


# who may call ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metadata", [(("authorization", "Bearer x"),), (("authorization", ""),), (("other", "1"),)])
@pytest.mark.parametrize(("method", "request_"), [("Get", pb.GetRequest()), ("List", pb.ListRequest())])
def test_without_the_token_nothing_is_answered(wire: Wire, method: str, request_: Any, metadata: Any) -> None:
    code, message = wire.refused(method, request_, metadata)
    assert code == "UNAUTHENTICATED"
    assert "the file `token`" in message


def test_an_upload_without_the_token_is_turned_away_and_leaves_nothing(wire: Wire, service: Service) -> None:
    content = secrets.token_bytes(100)
    sha256 = hashlib.sha256(content).hexdigest()
    code, _ = wire.refused("UploadData", upload(content, sha256), (("authorization", "Bearer x"),))
    assert code == "UNAUTHENTICATED"
    assert not list(service.home.uploads.glob(f"{sha256}*"))


def test_health_and_reflection_are_standard_and_health_is_open(wire: Wire) -> None:
    health: Any = health_pb2_grpc.HealthStub(wire.channel)
    answer = health.Check(health_pb2.HealthCheckRequest(service="pipetrain.v1.Pipetrain"), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflected: Any = reflection_pb2_grpc.ServerReflectionStub(wire.channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
        list(reflected.ServerReflectionInfo(iter([asked]), timeout=10))
    (listed,) = reflected.ServerReflectionInfo(iter([asked]), timeout=10, metadata=wire.metadata)
    assert "pipetrain.v1.Pipetrain" in [service.name for service in listed.list_services_response.service]
    with urllib.request.urlopen(f"http://{wire.http}/healthz", timeout=10) as page:
        assert json.load(page)["ok"] is True


def test_everything_listens_on_loopback_only(service: Service) -> None:
    head = json.loads(service.home.ray_file.read_text())["session"]
    ours = {service.pid, *in_session(head)}
    listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.pid in ours]
    assert len([c for c in listening if c.pid == service.pid]) == 2
    assert len({c.pid for c in listening}) > 3, "the list has Ray's servers"
    assert {c.laddr.ip for c in listening} <= {"127.0.0.1", "::ffff:127.0.0.1"}
    running = b" ".join(command_line(pid) for pid in ours)
    assert b"gcs_server" in running
    assert not [name for name in (b"monitor.py", b"ray.util.client") if name in running], "pipetrain does not use these"


# jobs --------------------------------------------------------------------------------------------------------------


def test_a_wrong_job_gets_every_problem_in_the_details(wire: Wire, small: JobMaker) -> None:
    document = {**small(), "seed": -1, "trainings": {}}
    problems = wire.problems("Submit", pb.SubmitRequest(document=json.dumps(document)))
    assert [field for field, _ in problems] == ["seed", "trainings"]
    assert problems[1][1].endswith("unknown key; did you mean training?")
    assert wire.refused("Submit", pb.SubmitRequest(document="{"))[0] == "INVALID_ARGUMENT"
    assert wire.refused("Submit", pb.SubmitRequest(document=json.dumps(small()), priority=2000))[0] == (
        "INVALID_ARGUMENT"
    )


def test_a_text_that_cannot_be_stored_is_refused_the_same_on_both_ports(
    wire: Wire, service: Service, small: JobMaker
) -> None:
    document = json.dumps(small(data__source="/d/\ud800.csv"))
    wanted = "data.source: got '/d/\\ud800.csv', must be text that UTF-8 can hold, without half of a surrogate pair"
    assert wire.refused("Submit", pb.SubmitRequest(document=document)) == ("INVALID_ARGUMENT", wanted)
    request = urllib.request.Request(f"http://{wire.http}/api/jobs", document.encode(), method="POST")
    request.add_header("Authorization", f"Bearer {service.home.token()}")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    assert caught.value.code == 422
    assert [line["text"] for line in json.load(caught.value)["lines"]] == [wanted]


def test_files_that_hang_or_never_end_are_refused_and_disturb_nobody(
    wire: Wire, small: JobMaker, tmp_path: Path
) -> None:
    """More callers than the service has threads name a fifo, a device and a file of 1 GiB."""
    os.mkfifo(tmp_path / "fifo.csv")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    with (tmp_path / "large.csv").open("wb") as file:
        file.truncate(2**30)
    reasons = {"fifo": "is a fifo", "zero": "is a device", "large": "has 1,073,741,824 bytes"}

    def submit(name: str) -> None:
        document = json.dumps(small(pipeline__schedule=str(tmp_path / f"{name}.csv")))
        with pytest.raises(grpc.RpcError) as caught:
            wire.call("Submit", pb.SubmitRequest(document=document), timeout=120)
        message = str(caught.value.details())
        if caught.value.code().name == "FAILED_PRECONDITION":  # a busy machine takes long to refuse the others' files
            assert message.endswith("try again later")
        else:
            assert caught.value.code().name == "INVALID_ARGUMENT"
            assert message.startswith(f"{tmp_path / name}.csv: cannot be read: {reasons[name]}")

    with ThreadPoolExecutor(8) as pool:
        callers = [pool.submit(submit, name) for name in [*reasons] * 3]
        while not all(caller.done() for caller in callers):
            wire.call("Cluster", pb.ClusterRequest(), timeout=10)
            with urllib.request.urlopen(f"http://{wire.http}/", timeout=10) as page:
                assert page.status == 200
    assert [caller.result() for caller in callers] == [None] * 9


def test_a_job_that_the_cluster_can_never_hold_is_refused_at_once(service: Service, small: JobMaker) -> None:
    with pytest.raises(Refused, match=r"needs 3 CPUs \(3 workers of 1\), this cluster has 2; fewer stages, or"):
        service.client.submit(small(pipeline__stages=3))
    memory = (
        r"needs 921,600 GiB of memory \(1 worker of 921,600 GiB\), this cluster has [\d.]+ (MiB|GiB); change resources"
    )
    with pytest.raises(Refused, match=memory):
        service.client.submit(small(resources__memory_per_worker="900TiB"))


def test_the_same_submission_id_is_the_same_job(service: Service, small: JobMaker) -> None:
    first = service.client.submit(small(1), submission_id="once")
    assert service.client.submit(small(1), submission_id="once").id == first.id
    with pytest.raises(Refused, match=f"belongs to job {first.id}, which has another document"):
        service.client.submit(small(2), submission_id="once")
    first.wait(timeout=120)


def test_sixteen_clients_with_one_submission_id_make_one_job(service: Service, small: JobMaker) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(service.client.submit(small(1), submission_id="race").id))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(found) == 16
    assert len(set(found)) == 1
    service.client.get(found[0]).wait(timeout=120)


def test_an_unknown_job_gets_the_nearest_id(service: Service, small: JobMaker) -> None:
    job = service.client.submit(small(1)).wait(timeout=120)
    with pytest.raises(UnknownJob, match=f"did you mean {job.id}"):
        service.client.get(f"{job.id[:-1]}-")
    assert service.client.get(job.id[:6]).id == job.id
    with pytest.raises(UnknownJob, match=r"begins several ids|did you mean|no job has the id"):
        service.client.get("")


def test_delete_takes_only_what_has_ended(service: Service, small: JobMaker) -> None:
    job = until(service.client.submit(small(100_000)), "RUNNING")
    with pytest.raises(Refused, match="is RUNNING; only a job that has ended can be deleted: stop it first"):
        job.delete()
    job.stop(now=True).wait(timeout=120)
    assert service.home.run_directory(job.id).exists()
    job.delete()
    assert not service.home.run_directory(job.id).exists()
    with pytest.raises(UnknownJob):
        job.refresh()


def test_list_finds_by_state_and_name_newest_first(service: Service, small: JobMaker) -> None:
    jobs = [service.client.submit(small(1, name="listed")) for _ in range(3)]
    for job in jobs:
        job.wait(timeout=120)
    found = service.client.list(name="listed")
    for listed in (found, service.client.list(name="listed")):  # the second time from kept messages
        assert [job.as_dict() for job in listed] == [service.client.get(job.id).as_dict() for job in listed]
    assert [job.id for job in found] == [job.id for job in reversed(jobs)]
    assert service.client.list(states=["RUNNING"], name="listed") == []
    assert [job.id for job in service.client.list(name="listed", limit=1)] == [jobs[2].id]


def test_plan_tells_what_train_would(service: Service, small: JobMaker) -> None:
    plan = service.client.plan(small(pipeline__stages=2))
    assert [stage["stage"] for stage in plan["stages"]] == [0, 1]
    assert 0 < plan["bubble"] < 1


def test_a_full_queue_says_so(wire: Wire, service: Service, small: JobMaker) -> None:
    running = until(service.client.submit(small(100_000, pipeline__stages=2)), "RUNNING")
    waiting = [service.client.submit(small(1)) for _ in range(MOST_QUEUED)]
    try:
        code, message = wire.refused("Submit", pb.SubmitRequest(document=_document(small)))
        assert code == "RESOURCE_EXHAUSTED"
        assert message.startswith(f"{MOST_QUEUED} jobs wait, which is the limit of the queue")
        waiting.pop(0).stop()
        urgent = service.client.submit(small(1), priority=5)
        assert urgent.queue_position == 1
        assert waiting[0].refresh().reason == "position 2: needs 1 CPU, 0 free; 1 job ahead"
    finally:
        for job in waiting:
            job.stop()
        running.stop(now=True)
    assert urgent.wait(timeout=120).state == "SUCCEEDED"


def test_a_second_service_of_a_home_is_refused(service: Service) -> None:
    second = service.run("up", "--home", service.folder)
    assert second.returncode == 2
    assert second.stderr.startswith(f"error: the service of {service.folder} is up: gRPC 127.0.0.1:")


# watching ----------------------------------------------------------------------------------------------------------


def test_a_hundred_watchers_each_get_every_row_in_order(service: Service, small: JobMaker) -> None:
    client = service.client
    job = client.submit(small(200))
    seen: list[list[Row]] = [[] for _ in range(100)]

    def watch(rows: list[Row]) -> None:
        rows.extend(Client(home=service.folder).get(job.id))

    threads = [threading.Thread(target=watch, args=(rows,), daemon=True) for rows in seen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    expected = service.rows(job)
    assert len(expected) == 2200
    for rows in seen:
        assert [row.as_dict() for row in rows] == expected


def test_a_watch_resumes_from_any_cursor(wire: Wire, service: Service, small: JobMaker) -> None:
    job = service.client.submit(small(5)).wait(timeout=120)
    updates = list(wire.call("Watch", pb.WatchRequest(id=job.id)))
    assert updates[0].HasField("job")
    assert updates[-1].job.state == pb.SUCCEEDED
    assert not updates[-1].rows
    rows = [row for update in updates for row in update.rows]
    for place, update in enumerate(updates):
        again = list(wire.call("Watch", pb.WatchRequest(id=job.id, cursor=update.cursor)))
        rest = [row for later in updates[place + 1 :] for row in later.rows]
        assert [row for later in again for row in later.rows] == rest
        assert again[-1].job.state == pb.SUCCEEDED
    assert len(rows) == 55
    quiet = list(wire.call("Watch", pb.WatchRequest(id=job.id, without_rows=True)))
    assert not any(update.rows for update in quiet)
    assert wire.refused("Watch", pb.WatchRequest(id=job.id, cursor="x"))[0] == "INVALID_ARGUMENT"


def test_a_watcher_that_goes_away_is_forgotten(wire: Wire, service: Service, small: JobMaker) -> None:
    job = until(service.client.submit(small(100_000)), "RUNNING")
    call = wire.call("Watch", pb.WatchRequest(id=job.id))
    next(call)
    call.cancel()
    with pytest.raises(grpc.RpcError) as late:
        list(wire.call("Watch", pb.WatchRequest(id=job.id), timeout=1.0))
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    job.stop(now=True).wait(timeout=120)


def test_logs_by_worker_stay_after_the_job(service: Service, small: JobMaker) -> None:
    job = service.client.submit(small(2, pipeline__stages=2))
    followed = list(job.logs(follow=True))
    assert {worker for worker, _ in followed} == {-1, 0, 1}
    assert any(line.endswith("ended at step 20 of 20") for worker, line in followed if worker == -1)
    assert [line.partition(" ")[2] for _, line in job.logs(worker=1)][-1] == "ready: stages 1"
    assert len(list(job.logs(worker="runner", tail=1))) == 1
    with pytest.raises(InvalidJob, match=rf"worker: got 7, must be one of job {job.id}: 0 to 1, or runner"):
        next(iter(job.logs(worker=7)))


# data --------------------------------------------------------------------------------------------------------------


def _content(rows: int = 3000) -> tuple[bytes, str]:
    import io

    rng, file = np.random.default_rng(), io.BytesIO()
    x = rng.normal(size=(rows, 4))
    np.savez(file, x=x, y=x[:, :1])
    content = file.getvalue()
    return content, hashlib.sha256(content).hexdigest()


def test_half_an_upload_is_resumed_and_trained_on(wire: Wire, service: Service, small: JobMaker) -> None:
    content, sha256 = _content()
    half = len(content) // 2
    stub, options = wire.stub.UploadData, {"metadata": wire.metadata, "timeout": 30}
    first = stub(upload(content[:half], sha256, size=len(content)), **options)
    assert (first.received, first.complete) == (half, False)
    document = json.dumps(parse_job(small(1, data__source="/elsewhere/rows.npz")).document())
    request = pb.SubmitRequest(document=document, files={"/elsewhere/rows.npz": sha256})
    code, message = wire.refused("Submit", request)
    assert code == "FAILED_PRECONDITION"
    assert message == "/elsewhere/rows.npz: its content was not uploaded; send it with UploadData"
    asked = stub(upload(b"", sha256, size=len(content)), **options)
    assert (asked.received, asked.complete) == (half, False)
    code, message = wire.refused("UploadData", upload(content, sha256))
    assert code == "OUT_OF_RANGE"
    assert message.endswith(f"{half} bytes are there; go on from {half}")
    rest = stub(upload(content[half:], sha256, offset=half, size=len(content)), **options)
    assert (rest.received, rest.complete) == (len(content), True)
    job = service.client.get(wire.call("Submit", request).id).wait(timeout=120)
    assert job.state == "SUCCEEDED", job.reason
    assert steps(list(job)) == list(range(1, 151))


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(wire: Wire, service: Service) -> None:
    content, sha256 = _content(10)
    wrong = bytes([content[0] ^ 1]) + content[1:]
    code, message = wire.refused("UploadData", upload(wrong, sha256))
    assert code == "DATA_LOSS"
    assert "nothing is kept" in message
    assert not list(service.home.uploads.glob(f"{sha256}*"))
    for header in ({"sha256": "x"}, {"sha256": sha256, "ending": ".exe"}, {"sha256": "../../" + sha256[6:]}):
        assert wire.refused("UploadData", upload(content, **header))[0] == "INVALID_ARGUMENT"  # type: ignore[arg-type]


def test_a_table_that_does_not_fit_is_told_by_its_own_name(service: Service, small: JobMaker, tmp_path: Path) -> None:
    (tmp_path / "houses.csv").write_text("a,b,c,d,price\n1,2,3,x,5\n")
    job = service.client.submit(small(1, data__source=str(tmp_path / "houses.csv"))).wait(timeout=120)
    assert job.state == "FAILED"
    assert job.exit_code == 2
    assert job.reason.startswith(f"{tmp_path / 'houses.csv'}: ")
    assert service.run("wait", job.id).returncode == 2


# nonsense ----------------------------------------------------------------------------------------------------------


def test_random_bytes_on_the_ports_disturb_nobody(wire: Wire, service: Service, small: JobMaker) -> None:
    job = service.client.submit(small(100))
    for address in (wire.address, wire.http):
        host, port = address.split(":")
        for _ in range(30):
            with socket.create_connection((host, int(port)), timeout=5) as connection:
                connection.sendall(secrets.token_bytes(4096))
    assert job.wait(timeout=120).state == "SUCCEEDED"


_METHODS = [method.name for method in pb.DESCRIPTOR.services_by_name["Pipetrain"].methods]


@settings(max_examples=examples(60, 150), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(method=st.sampled_from(_METHODS), body=st.binary(max_size=300))
def test_fuzzed_messages_get_an_error_or_an_answer(wire: Wire, method: str, body: bytes) -> None:
    call = wire.channel.stream_stream(f"/pipetrain.v1.Pipetrain/{method}")
    with contextlib.suppress(grpc.RpcError):
        list(call(iter([body]), metadata=wire.metadata, timeout=20))
    health: Any = health_pb2_grpc.HealthStub(wire.channel)
    health.Check(health_pb2.HealthCheckRequest(), timeout=10)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
_PATHS = ["model", "model.layers", "model.layers.1", "data.source", "training", "training.optimizer.sgd", "pipeline"]


@settings(max_examples=examples(60, 150), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=_JSON | st.builds(changed, st.sampled_from(_PATHS), _JSON, st.just(LARGEST)))
def test_fuzzed_jobs_get_their_problems(wire: Wire, document: Any) -> None:
    if isinstance(document, dict):
        document["fuzzed"] = 1  # so that no document is valid by chance
    code, message = wire.refused("Submit", pb.SubmitRequest(document=json.dumps(document)))
    assert code == "INVALID_ARGUMENT"
    assert message


def test_the_service_is_well_after_all_this(service: Service) -> None:
    log = (service.home.logs / "service.log").read_text()
    assert "Traceback" not in log
    assert "ERROR" not in log
    assert service.client.cluster().ray == "up"


def test_the_generated_code_is_what_the_proto_says() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run([root / "scripts" / "generate", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sys.version_info >= (3, 11)
