"""The services of docker-compose.yml, driven from outside: compose, docker, HTTP, and the `pipetrain` command."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tests.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
PIPETRAIN = str(Path(sys.executable).parent / "pipetrain")
PORTS = ("PIPETRAIN_GRPC_PORT", "PIPETRAIN_HTTP_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT")
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_COMMAND_S = 120.0

T = TypeVar("T")


class Failed(Exception):
    """An expected result did not come."""


class Stack:
    """A compose project with free loopback ports. `compose` is the command, in one word or two."""

    def __init__(self, compose: str, home: Path) -> None:
        self.project = f"pipetrain-test-{os.getpid()}-{secrets.token_hex(2)}"
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self._compose = [*compose.split(), "--project-name", self.project]
        ports = {name: str(port) for name, port in self.ports.items()}
        self._environment = {**os.environ, **ports, "PIPETRAIN_WORKER_CPUS": "1", "PIPETRAIN_HOME": str(home)}

    def compose(self, *arguments: str, within_s: float = _COMMAND_S, shown: bool = False) -> str:
        """Run `docker-compose ARGUMENTS`; return its output. Raises Failed with its errors if it fails."""
        return self._run([*self._compose, *arguments], within_s, shown=shown)

    def docker(self, *arguments: str) -> str:
        """Run `docker ARGUMENTS`; return its output."""
        return self._run(["docker", *arguments], _COMMAND_S)

    def pipetrain(self, *arguments: str, code: int = 0, token: str | None = None, within_s: float = _COMMAND_S) -> str:
        """Run `pipetrain ARGUMENTS` here with the published port; return its output. It must exit with `code`."""
        service = {"PIPETRAIN_ADDRESS": f"127.0.0.1:{self.ports['PIPETRAIN_GRPC_PORT']}"}
        more = service if token is None else {**service, "PIPETRAIN_TOKEN": token}
        return self._run([PIPETRAIN, *arguments], within_s, code=code, more=more)

    def containers(self, service: str = "", *, stopped: bool = False) -> list[str]:
        """Return the ids of the project's containers."""
        wanted = [f"label=com.docker.compose.project={self.project}"]
        wanted += [f"label=com.docker.compose.service={service}"] if service else []
        filters = [part for one in wanted for part in ("--filter", one)]
        return self.docker("ps", "--quiet", "--no-trunc", *(["--all"] if stopped else []), *filters).split()

    def inspect(self, container: str) -> dict[str, Any]:
        """Return the engine's description of a container."""
        (found,) = json.loads(self.docker("inspect", container))
        return dict(found)

    def get(self, port: str, path: str, **query: str) -> tuple[int, Any]:
        """Return status and body of a GET on a published port; a JSON body is decoded."""
        url = f"http://127.0.0.1:{self.ports[port]}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        try:
            with _OPENER.open(url, timeout=10) as answer:
                status, body = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, body = error.code, error.read()
        except OSError as error:
            raise Failed(f"{url}: {error}") from None
        try:
            return status, json.loads(body)
        except ValueError:
            return status, body.decode(errors="replace")

    def query(self, promql: str) -> list[dict[str, Any]]:
        """Return the samples that Prometheus has now."""
        status, answer = self.get("PROMETHEUS_PORT", "/api/v1/query", query=promql)
        if status != 200:
            raise Failed(f"Prometheus refuses {promql}: {answer}")
        return list(answer["data"]["result"])

    def left(self) -> list[str]:
        """Return what is left of the project: containers, volumes, networks."""
        mine = ("--filter", f"label=com.docker.compose.project={self.project}")
        found = [
            self.docker("ps", "--all", "--format", "container {{.Names}}", *mine),
            self.docker("volume", "ls", "--format", "volume {{.Name}}", *mine),
            self.docker("network", "ls", "--format", "network {{.Name}}", *mine),
        ]
        return [line for text in found for line in text.splitlines()]

    def _run(
        self,
        command: list[str],
        within_s: float,
        *,
        code: int = 0,
        more: dict[str, str] | None = None,
        shown: bool = False,
    ) -> str:
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env={**self._environment, **(more or {})},
                stdin=subprocess.DEVNULL,
                stdout=None if shown else subprocess.PIPE,
                stderr=None if shown else subprocess.PIPE,
                text=True,
                timeout=within_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"{' '.join(command)}: not done after {within_s:g} s") from None
        if done.returncode != code:
            said = f"{done.stdout or ''}\n{done.stderr or ''}".strip()
            raise Failed(f"{' '.join(command)}: ended with {done.returncode} instead of {code}\n{said}")
        return done.stdout or ""


def wait_for(what: str, look: Callable[[], T | None], within_s: float) -> T:
    """Call `look` until it returns something; return that. Raises Failed, which names what was waited for."""
    deadline, last = time.monotonic() + within_s, ""
    while True:
        try:
            found = look()
            if found:
                return found
        except Failed as error:
            last = f"; {error}"
        if time.monotonic() > deadline:
            raise Failed(f"after {within_s:g} s there is still not: {what}{last}")
        time.sleep(0.5)
