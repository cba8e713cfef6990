"""/api of a real service with a running job."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from cluster.client import Job
from coordinator.program.replay import replay
from coordinator.schedules import build
from stages.ledger import STAGE_KINDS, WORKER_KINDS
from tests.service.running import Service, until, wait_for


class Api:
    """A script's requests: without an origin, and with the token if they change something."""

    def __init__(self, address: str, token: str) -> None:
        self.address, self._token = address, token

    def ask(
        self, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Send a request and return status and answer."""
        connection = http.client.HTTPConnection(self.address, timeout=60)
        given = {"Authorization": f"Bearer {self._token}"} if method != "GET" else {}
        if body is not None:
            given["Content-Type"] = "application/json"
        connection.request(method, path, body, {**given, **(headers or {})})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        is_json = answer.headers.get_content_type() == "application/json"
        return answer.status, json.loads(content) if is_json else content

    def later(self, path: str) -> Any:
        """Repeat a GET until the job has figures for it, and return the answer."""
        wait_for(lambda: self.ask("GET", f"/api{path}")[0] != 409, f"{path} never answers")
        return self.get(path)

    def get(self, path: str, **query: Any) -> Any:
        """Send a GET that must succeed and return the answer."""
        status, answer = self.ask("GET", f"/api{path}?{urlencode(query, doseq=True)}")
        assert status == 200, answer
        return answer


@pytest.fixture(scope="module")
def api(service: Service, address: str) -> Api:
    return Api(address, service.home.token())


def test_a_job_is_told_as_status_json_tells_it(api: Api, service: Service, endless: Job) -> None:
    told = json.loads(service.run("status", endless.id, "--json").stdout)
    answer = api.get(f"/jobs/{endless.id}")
    assert answer.keys() == told.keys()
    same = answer.keys() - {"step", "loss", "validation_loss", "validation_accuracy"}
    assert {key: answer[key] for key in same} == {key: told[key] for key in same}
    assert endless.id in [job["id"] for job in api.get("/jobs", state="RUNNING", search="endl")["jobs"]]


def test_rows_are_those_of_the_metrics_file(api: Api, service: Service, endless: Job) -> None:
    wait_for(lambda: endless.refresh().step > 20, "no steps")
    losses = api.get(f"/jobs/{endless.id}/rows", series="loss")["series"]["loss"]
    assert len(losses["steps"]) == len(losses["values"]) <= 1001
    written = {row["step"]: row["loss"] for row in service.rows(endless) if row["kind"] == "step"}
    assert all(written[step] == loss for step, loss in zip(losses["steps"], losses["values"], strict=True))


def test_accounts_leave_no_time_out(api: Api, endless: Job) -> None:
    found = api.later(f"/jobs/{endless.id}/accounts")
    for worker in found["workers"]:
        of_stages = [stage["seconds"] for stage in found["stages"] if stage["worker"] == worker["worker"]]
        assert all(seconds.keys() == set(STAGE_KINDS) for seconds in of_stages)
        assert worker["seconds"].keys() == set(WORKER_KINDS)
        total = sum(sum(seconds.values()) for seconds in (*of_stages, worker["seconds"]))
        assert total == pytest.approx(worker["wall_seconds"], rel=1e-6)
    assert {(link["sender"], link["receiver"]) for link in found["links"]} == {(0, 1), (1, 0)}


def test_the_timeline_has_every_action_of_a_step(api: Api, endless: Job) -> None:
    found = api.later(f"/jobs/{endless.id}/timeline")
    assert len(found["actions"]) == 2 * 6 * 3
    assert all(0 <= action["start_us"] <= action["end_us"] for action in found["actions"])
    assert [stage["stage"] for stage in found["memory"]] == [0, 1]


def test_events_logs_and_files(api: Api, service: Service, endless: Job) -> None:
    events = api.get(f"/jobs/{endless.id}/events")
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert {"submitted", "started"} <= {event["kind"] for event in events}
    assert api.get(f"/jobs/{endless.id}/events", after=2)[0]["seq"] == 3
    assert {line["worker"] for line in api.get(f"/jobs/{endless.id}/logs")} == {-1, 0, 1}
    assert "job.yaml" in {file["path"] for file in api.get(f"/jobs/{endless.id}/files")}
    status, content = api.ask("GET", f"/api/jobs/{endless.id}/files/job.yaml")
    assert (status, content) == (200, (service.home.run_directory(endless.id) / "job.yaml").read_bytes())
    for path in ("../../token", "%2e%2e/%2e%2e/token", "nothing"):
        assert api.ask("GET", f"/api/jobs/{endless.id}/files/{path}")[0] == 404


@pytest.mark.parametrize("path", ["", "/", "/nope", "/jobs/", "/jobs/k/nope", "/cluster/"])
def test_an_unknown_path_is_told_as_every_refusal_is(api: Api, path: str) -> None:
    status, answer = api.ask("GET", f"/api{path}")
    assert (status, answer) == (
        404,
        {"problems": [f"/api{path}: no such path; GET /api/openapi.json describes all paths"]},
    )


@pytest.mark.parametrize(
    ("method", "path", "methods"),
    [("PUT", "/jobs/k", "DELETE, GET"), ("PATCH", "/jobs", "GET, POST"), ("DELETE", "/openapi.json", "GET, HEAD")],
)
def test_a_wrong_method_names_the_right_ones(api: Api, method: str, path: str, methods: str) -> None:
    status, answer = api.ask(method, f"/api{path}")
    assert (status, answer) == (405, {"problems": [f"/api{path}: got {method}, must be {methods}"]})


@pytest.mark.parametrize("path", ["/_nicegui/nope", "/_nicegui/client/k/upload/1"])
def test_strangers_are_given_no_page(api: Api, path: str) -> None:
    assert api.ask("GET", path) == (404, {"problems": ["no such path"]})
    assert api.ask("PUT", "/healthz") == (405, {"problems": ["/healthz: got PUT, must be GET"]})


@pytest.mark.parametrize("query", ["page=99999999999999999999", "after=99999999999999999999"])
def test_numbers_that_the_store_cannot_hold_are_refused(api: Api, endless: Job, query: str) -> None:
    path = "/api/jobs" if query.startswith("page") else f"/api/jobs/{endless.id}/events"
    status, answer = api.ask("GET", f"{path}?{query}")
    assert status == 422
    assert query.partition("=")[0] in answer["problems"][0]


def test_a_parameter_that_would_be_overlooked_is_named(api: Api) -> None:
    known = "must be state, search, sort, descending, limit, page"
    status, answer = api.ask("GET", "/api/jobs?stat=RUNNING&limit=1&nothing=")
    assert (status, answer["problems"]) == (
        422,
        [f"stat: unknown parameter, {known}; did you mean state?", f"nothing: unknown parameter, {known}"],
    )
    assert api.ask("GET", "/api/cluster?x=1") == (422, {"problems": ["x: unknown parameter, this path has none"]})
    assert api.ask("POST", "/api/jobs?nam=x", "a: 1")[1]["problems"][0].endswith("did you mean name?")


def test_logs_of_the_runner_are_asked_for_by_its_name(api: Api, endless: Job) -> None:
    for word in ("runner", "-1"):
        assert {line["worker"] for line in api.get(f"/jobs/{endless.id}/logs", worker=word)} == {-1}
    wrong = {
        "7": f"worker: got 7, must be one of job {endless.id}: 0 to 1, or runner (in calls also -1)",
        "one": "worker: got 'one', must be a worker's number, such as 0, or runner",
        "": "worker: got '', must be a worker's number, such as 0, or runner",
    }
    for word, text in wrong.items():
        assert api.ask("GET", f"/api/jobs/{endless.id}/logs?worker={word}") == (422, {"problems": [text]})


def test_a_schedule_is_its_dry_run(api: Api) -> None:
    found = api.get("/schedule", schedule="zb-h1", stages=4, micro_batches=6)
    wanted = replay(build("zb-h1", n_stages=4, n_micro_batches=6))
    assert found["bubble"] == pytest.approx(wanted.bubble)
    assert [stage["peak_alive"] for stage in found["by_stage"]] == list(wanted.peak_alive)
    status, answer = api.ask("GET", "/api/schedule?stages=4&workers=9")
    assert (status, answer["problems"]) == (
        422,
        ["workers: got 9, must be 1 to 4: each worker needs at least one stage"],
    )
    huge = "9" * 20
    for name in ("stages", "micro_batches", "workers"):
        assert api.ask("GET", f"/api/schedule?{name}={huge}")[0] == 422
        status, page = api.ask("GET", f"/schedule?{name}={huge}")
        assert (status, f"got {huge}" in page.decode()) == (200, True), name
    assert api.ask("GET", "/schedule?backward=nan")[0] == 200


def test_the_lab_answers_and_what_cannot_be_compared_is_one_line(api: Api) -> None:
    found = api.get("/lab", stages=3, micro_batches=4)
    assert [row["schedule"] for row in found["schedules"] if row["left_out"]] == ["dualpipev"]
    wrong = {
        "memory=1": "memory: 1 micro-batches a worker, but no schedule keeps so few; the least is 4, of v-min",
        "stages=99999": "stages: got 99999, must be 1 to 10,000",
        "latency=nan": "latency: got nan, must be 0 to 1000",
        "stages=64&micro_batches=64&search=true": (
            "64 workers × 64 micro-batches are too many to search, at most 1,024"
        ),
    }
    for query, text in wrong.items():
        assert api.ask("GET", f"/api/lab?{query}") == (422, {"problems": [text]})
    few = "dualpipev: 3 micro-batches are too few for 2 workers, it needs at least two for each worker: 4"
    status, answer = api.ask("GET", "/api/schedule?schedule=dualpipev&stages=4&micro_batches=3")
    assert (status, answer["problems"]) == (422, [few])
    for query in ("stages=99999999999999999999", "forward=nan", "memory=inf"):
        status, page = api.ask("GET", f"/lab?{query}")
        assert (status, b"Search for a better one" in page) == (200, True), query


def test_a_job_submitted_by_a_script_is_stopped_and_deleted(api: Api, service: Service, document: Any) -> None:
    text = yaml.safe_dump({**document, "pipeline": {"stages": 1}})
    status, job = api.ask("POST", "/api/jobs?name=by-script&submission_id=once", text)
    assert (status, job["name"]) == (201, "by-script")
    assert api.ask("POST", "/api/jobs?name=by-script&submission_id=once", text)[1]["id"] == job["id"]
    assert api.ask("DELETE", f"/api/jobs/{job['id']}")[0] == 409, "it has not ended"
    resume = f"/api/jobs/{job['id']}/resume"
    status, answer = api.ask("POST", resume)
    assert (status, "only a job that has ended can be resumed" in answer["problems"][0]) == (409, True)
    until(service.client.job(job["id"]), "RUNNING")
    assert api.ask("POST", f"/api/jobs/{job['id']}/stop")[0] == 200
    until(service.client.job(job["id"]), "STOPPED")
    assert api.ask("POST", f"/api/jobs/{job['id']}/trace", '{"steps": 5}')[0] == 409
    status, answer = api.ask("POST", resume, '{"changes": ["seed=4"]}')
    assert (status, answer["problems"][0].partition(":")[0]) == (422, "seed")
    wanted = {"changes": ["pipeline.stages=2", "name=goes-on"], "priority": 3, "preempt": True}
    status, after = api.ask("POST", resume, json.dumps(wanted))
    assert (status, after["name"], after["priority"]) == (201, "goes-on", 3)
    assert service.client.job(after["id"]).events()[0].kind == "submitted"
    assert after["step"] == service.client.job(job["id"]).step
    assert api.ask("POST", f"/api/jobs/{after['id']}/stop", '{"now": true}')[0] == 200
    until(service.client.job(after["id"]), "STOPPED")
    assert api.ask("DELETE", f"/api/jobs/{job['id']}") == (200, {"id": job["id"]})
    assert api.ask("GET", f"/api/jobs/{job['id']}")[0] == 404


def test_a_wrong_job_is_refused_with_its_lines(api: Api) -> None:
    status, answer = api.ask("POST", "/api/jobs", "model: {}\ntraining:\n  epochs: none\n")
    assert status == 422
    assert (3, "training.epochs") in {(line["line"], line["text"].partition(":")[0]) for line in answer["lines"]}
    assert api.ask("POST", "/api/jobs?priority=x", "a: 1")[0] == 422
    assert api.ask("POST", "/api/jobs", "\x00")[0] == 422


def test_only_our_pages_and_holders_of_the_token_change_something(api: Api, endless: Job) -> None:
    stop = f"/api/jobs/{endless.id}/stop"
    status, answer = api.ask("POST", stop, headers={"Authorization": ""})
    assert (status, answer["problems"][0].partition(":")[0]) == (401, "authorization")
    assert api.ask("POST", stop, headers={"Origin": "http://elsewhere.example"})[0] == 403
    for path in ("/", "/api/jobs", "/metrics", "/healthz"):
        assert api.ask("GET", path, headers={"Host": "elsewhere.example"})[0] == 400
        assert api.ask("GET", path)[0] == 200
    assert endless.refresh().state == "RUNNING"


@pytest.mark.parametrize(("origin", "wanted"), [("http://elsewhere.example", 403), ("", 403), ("http://ADDRESS", 101)])
def test_only_our_pages_open_a_websocket(api: Api, origin: str, wanted: int) -> None:
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    if origin:
        headers["Origin"] = origin.replace("ADDRESS", api.address)
    connection = http.client.HTTPConnection(api.address, timeout=20)
    connection.request("GET", "/_nicegui_ws/socket.io/?EIO=4&transport=websocket", headers=headers)
    answer = connection.getresponse()
    connection.close()
    assert answer.status == wanted


def test_every_answer_is_described(api: Api) -> None:
    found = api.get("/openapi.json")
    schemas = found["components"]["schemas"]
    assert {"/api/jobs", "/api/jobs/{job}/timeline", "/api/schedule"} <= found["paths"].keys()
    for path, methods in found["paths"].items():
        for method, said in methods.items():
            assert said.get("description"), f"{method} {path} has no description"
    assert "0 to 1" in schemas["StageAccount"]["properties"]["bubble"]["description"]
