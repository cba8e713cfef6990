"""`scripts/test-compose`: a user's journey through docker-compose.yml, on a real engine, from build to `down -v`."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.deploy.compose import Failed, Stack, wait_for

SERVICES = ("head", "worker", "coordinator", "prometheus")
NODES = ("head", "worker", "coordinator")
N_WORKERS = 3
JOB = "examples/digits.yaml"
LONG = "training.epochs=20000"
SHORT = "training.epochs=3"


class Journey:
    """The steps in order. Each begins by printing what it does."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.token, self._began = stack, "", time.monotonic()

    def say(self, text: str) -> None:
        """Print a line with the seconds since the image was built."""
        print(f"{time.monotonic() - self._began:5.0f} s  {text}", flush=True)

    def run(self) -> None:
        """Perform all steps."""
        self.say("build")
        self.stack.compose("build", *NODES, within_s=1800, shown=True)
        self._began = time.monotonic()
        self.up()
        self.look_at_containers()
        self.train()
        self.lose_a_worker()
        self.train_on_what_is_left()
        self.bring_it_back()
        self.down()
        self.say("passed")

    def up(self) -> None:
        """All containers start and are healthy, and the host's CLI can use the service with the token."""
        self.say(f"up with {N_WORKERS} workers")
        self.start()
        read = ("exec", "-T", "coordinator", "cat", "/var/lib/pipetrain/token")
        self.token = self.stack.compose(*read).strip()
        self.pipetrain("list", code=2, token="0" * 64)

    def start(self) -> None:
        """Run `up`; then all containers are healthy, and every worker's CPU is there."""
        self.stack.compose("up", "-d", "--scale", f"worker={N_WORKERS}", *SERVICES, within_s=300, shown=True)
        wait_for("all containers healthy", self._all_healthy, 120)

    def look_at_containers(self) -> None:
        """Ports are published on loopback only, and none of Ray's; no role runs as root; memory is limited."""
        self.say("ports on loopback, no root, memory limits")
        published = []
        for service in SERVICES:
            for container in self.stack.containers(service):
                facts = self.stack.inspect(container)
                expect(facts["HostConfig"]["Memory"] > 0, f"{service} has no memory limit")
                if service in NODES:
                    user = self.stack.docker("exec", container, "id", "-u").strip()
                    expect(user != "0", f"{service} runs as root")
                for port, places in facts["NetworkSettings"]["Ports"].items():
                    for place in places or ():
                        expect(place["HostIp"] == "127.0.0.1", f"{service} publishes {port} on {place['HostIp']}")
                        published.append((service, port))
        wanted = [("coordinator", "7070/tcp"), ("coordinator", "7071/tcp"), ("prometheus", "9090/tcp")]
        expect(sorted(published) == wanted, f"published: {sorted(published)}, wanted: {wanted}")
        for path in ("/", "/assets/dashboard.css"):
            status, _ = self.stack.get("PIPETRAIN_HTTP_PORT", path)
            expect(status == 200, f"GET {path} on the dashboard's port answers {status}")

    def train(self) -> None:
        """A job over all worker containers succeeds; its run directory and its series are there."""
        wait_for(f"{N_WORKERS} CPUs", lambda: self.cpus() == N_WORKERS, 60)
        self.say(f"train on {N_WORKERS} worker containers")
        job = self.submit(SHORT, stages=N_WORKERS)
        hosts = {worker["host"] for worker in self.workers(job)}
        expect(len(hosts) == N_WORKERS, f"{N_WORKERS} workers of one CPU ran on {sorted(hosts)}")
        with tempfile.TemporaryDirectory() as folder:
            self.pipetrain("fetch", job["id"], "-o", f"{folder}/run")
            model = Path(folder) / "run" / "model.safetensors"
            expect(model.stat().st_size > 10_000, f"{model.name} has {model.stat().st_size} bytes")
        self.say("its series in Prometheus")
        self.series('up{job="pipetrain"} == 1')
        self.series(f'pipetrain_steps_total{{job="{job["id"]}"}} == {job["steps_total"]}')
        self.series('pipetrain_jobs{state="SUCCEEDED"} == 1')
        status, rules = self.stack.get("PROMETHEUS_PORT", "/api/v1/rules")
        alerts = [rule for group in rules["data"]["groups"] for rule in group["rules"]] if status == 200 else []
        wrong = [rule["name"] for rule in alerts if rule["health"] == "err"]
        expect(bool(alerts) and not wrong, f"alert rules: {len(alerts)}, of which Prometheus cannot evaluate {wrong}")

    def lose_a_worker(self) -> None:
        """A job whose worker container is killed fails with that cause, and the service goes on."""
        started = self.pipetrain("submit", JOB, "--stages", str(N_WORKERS), "--set", LONG, "--no-wait", "--json")
        job = json.loads(started)
        self.say(f"a long job {job['id']}, watched until it makes steps")
        wait_for("its 20th step", lambda: self.status(job)["step"] >= 20, 90)
        self.series(f'pipetrain_stage_bubble_ratio{{job="{job["id"]}"}}', n=N_WORKERS)
        (lost,) = (worker for worker in self.workers(job) if worker["worker"] == 1)
        containers = {self.stack.inspect(one)["Config"]["Hostname"]: one for one in self.stack.containers("worker")}
        self.say(f"docker kill {lost['host']}, where worker 1 is")
        self.stack.docker("kill", containers[lost["host"]])
        killed = time.monotonic()
        self.pipetrain("wait", job["id"], code=1, within_s=90)
        found = self.status(job)
        expect(found["state"] == "FAILED", f"the job is {found['state']}")
        cause = f"worker 1 (stage 1; process {lost['pid']} on {lost['host']}) died"
        expect(found["reason"].startswith(cause), f"the reason should begin with {cause!r}: {found['reason']!r}")
        self.say(f"FAILED after {time.monotonic() - killed:.1f} s: {found['reason']}")
        status, health = self.stack.get("PIPETRAIN_HTTP_PORT", "/healthz")
        expect(status == 200 and health["ok"], f"healthz answers {status}: {health}")

    def train_on_what_is_left(self) -> None:
        """The next job succeeds on the other workers; the failure is counted."""
        self.say("the next job, on the two that are left")
        self.submit(SHORT, stages=2)
        self.series('pipetrain_job_failures_total{kind="WorkerLost"} == 1')
        self.series('pipetrain_jobs{state="FAILED"} == 1')

    def bring_it_back(self) -> None:
        """Another `up` starts the killed container, and its node joins the cluster again."""
        self.say("up again brings the killed worker back")
        self.start()
        wait_for(f"{N_WORKERS} CPUs, none in use", lambda: self.cpus() == N_WORKERS and not self.cpus("cpus_used"), 90)
        self.submit(SHORT, stages=N_WORKERS)

    def down(self) -> None:
        """Nothing of the project is left."""
        self.say("down -v")
        self.stack.compose("down", "-v", within_s=180, shown=True)
        left = self.stack.left()
        expect(not left, f"down -v left {', '.join(left)}")

    # looking -------------------------------------------------------------------------------------------------------

    def pipetrain(self, *arguments: str, code: int = 0, token: str | None = None, within_s: float = 120) -> str:
        """Run the command on this host, with the right token or another one."""
        return self.stack.pipetrain(*arguments, code=code, token=token or self.token, within_s=within_s)

    def submit(self, setting: str, *, stages: int) -> dict[str, Any]:
        """Submit a job, and follow it to its end, which must be a success."""
        lines = self.pipetrain("submit", JOB, "--stages", str(stages), "--set", setting, "--json")
        job: dict[str, Any] = json.loads(lines.splitlines()[-1])
        expect(job["state"] == "SUCCEEDED", f"the job is {job['state']}: {job['reason']}")
        expect(job["step"] == job["steps_total"] > 0, f"the job made {job['step']} of {job['steps_total']} steps")
        return job

    def status(self, job: dict[str, Any]) -> dict[str, Any]:
        """Return the job's present status."""
        return dict(json.loads(self.pipetrain("status", job["id"], "--json")))

    def workers(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the place of each worker of the job."""
        events = json.loads(self.pipetrain("describe", job["id"], "--json"))["events"]
        (started,) = (event for event in events if event["kind"] == "started")
        return list(started["details"]["workers"])

    def cpus(self, key: str = "cpus") -> float:
        """Return the CPUs of the cluster's nodes."""
        nodes = json.loads(self.pipetrain("cluster", "--json"))["nodes"]
        return float(sum(node[key] for node in nodes))

    def series(self, promql: str, *, n: int = 1) -> None:
        """Wait until Prometheus has scraped this many series."""
        wait_for(f"{n} series of {promql}", lambda: len(self.stack.query(promql)) == n, 30)

    def _all_healthy(self) -> bool:
        states = [self.stack.inspect(one)["State"]["Health"]["Status"] for one in self.stack.containers()]
        return states == ["healthy"] * (len(SERVICES) - 1 + N_WORKERS)


def expect(holds: bool, otherwise: str) -> None:
    """Raise Failed if a condition does not hold."""
    if not holds:
        raise Failed(otherwise)


def main() -> int:
    """Return 0 if all went well; else print the reason and the last lines of every service, and return 1. Removes the
    project in any case."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="pipetrain-") as home:
        stack = Stack(sys.argv[1], Path(home))
        try:
            Journey(stack).run()
        except Failed as error:
            for look in (("ps",), ("logs", "--no-color", "--tail", "30")):
                print(stack.compose(*look), file=sys.stderr)
            print(f"test-compose: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("test-compose: interrupted", file=sys.stderr)
            return 130
        finally:
            if stack.left():
                stack.compose("down", "-v", "--timeout", "10", within_s=180)
    return 0


if __name__ == "__main__":
    sys.exit(main())
