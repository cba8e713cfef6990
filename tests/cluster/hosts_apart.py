"""Three network namespaces that stand for hosts: `head`, with a switch, and `a` and `b`, with a cable to it each.

Needs root and ip(8). Ray's nodes of one CPU run on `a` and `b`; its head, without a CPU, and the driver on `head`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence

POSSIBLE = os.geteuid() == 0 and shutil.which("ip") is not None
_NET = "10.213.7"
_TRIES = 3
ADDRESS = f"{_NET}.1:6379"
_ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_prestart_worker_first_driver": "0",
}

_RAY_START = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--object-store-memory", "100000000"]


def _node_of_one_cpu(number: int) -> list[str]:
    return [*_RAY_START, "--address", ADDRESS, "--num-cpus", "1", "--node-ip-address", f"{_NET}.{number}"]


class Hosts:
    """The namespaces and their cables."""

    def __init__(self) -> None:
        self._names = {name: f"pt-{os.getpid()}-{name}" for name in ("head", "a", "b")}
        self._started: list[subprocess.Popen[bytes]] = []

    def make(self) -> None:
        for name in self._names.values():
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        head = self._names["head"]
        _ip("-n", head, "link", "add", "switch", "type", "bridge")
        _ip("-n", head, "addr", "add", f"{_NET}.1/24", "dev", "switch")
        _ip("-n", head, "link", "set", "switch", "up")
        for number, name in ((2, "a"), (3, "b")):
            host = self._names[name]
            _ip("-n", head, "link", "add", f"to-{name}", "type", "veth", "peer", "name", "cable", "netns", host)
            _ip("-n", head, "link", "set", f"to-{name}", "master", "switch", "up")
            _ip("-n", host, "addr", "add", f"{_NET}.{number}/24", "dev", "cable")
            _ip("-n", host, "link", "set", "cable", "up")

    def start_ray(self) -> None:
        head = ["--head", "--port", "6379", "--num-cpus", "0", "--include-dashboard", "false"]
        self._start_node("head", [*_RAY_START, *head, "--node-ip-address", f"{_NET}.1"], 1)
        for number, name in ((2, "a"), (3, "b")):
            self._start_node(name, _node_of_one_cpu(number), number)

    def join(self, host: str) -> subprocess.Popen[bytes]:
        """Start another node of one CPU on `head`, `a` or `b`; it joins when it is ready."""
        return self.start(host, _node_of_one_cpu({"head": 1, "a": 2, "b": 3}[host]))

    def _start_node(self, host: str, command: Sequence[str], nodes: int) -> None:
        """Start a node of Ray, and wait until there are so many; again if it ends: on a busy host Ray gives up."""
        for _ in range(_TRIES):
            node = self.start(host, command)
            while node.poll() is None:
                if self.nodes() >= nodes:
                    return
        raise AssertionError(f"the node of Ray on {host} does not start")

    def nodes(self) -> int:
        """Return how many nodes Ray has."""
        ask = (
            "import ray\n"
            f"ray.init(address='{ADDRESS}', log_to_driver=False, logging_level='ERROR')\n"
            "print(sum(node['Alive'] for node in ray.nodes()))"
        )
        asked = self.inside("head", [sys.executable, "-c", ask])
        done = subprocess.run(asked, env=_ENVIRONMENT, capture_output=True, text=True, check=False)
        return int(done.stdout) if done.returncode == 0 else 0

    def inside(self, host: str, command: Sequence[str]) -> list[str]:
        """Return the command that runs a command on a host."""
        return ["ip", "netns", "exec", self._names[host], *command]

    def start(self, host: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a command on a host."""
        started = subprocess.Popen(
            self.inside(host, command),
            env=_ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._started.append(started)
        return started

    def cut(self, *, cut: bool = True) -> None:
        """Let the switch pass nothing between `a` and `b`; both still reach the head."""
        for name in ("a", "b"):
            state = "on" if cut else "off"
            _ip("-n", self._names["head"], "link", "set", f"to-{name}", "type", "bridge_slave", "isolated", state)

    def pull(self, host: str, *, out: bool = True) -> None:
        """Pull the cable of a host, or put it in again."""
        _ip("-n", self._names["head"], "link", "set", f"to-{host}", "down" if out else "up")

    def processes(self, host: str) -> list[int]:
        """Return the processes of a host."""
        asked = subprocess.run(["ip", "netns", "pids", self._names[host]], capture_output=True, text=True, check=False)
        return [int(pid) for pid in asked.stdout.split()]

    def close(self) -> None:
        for process in reversed(self._started):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for host, name in self._names.items():
            for pid in self.processes(host):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@contextlib.contextmanager
def hosts_apart() -> Iterator[Hosts]:
    """Make the hosts, with Ray on each; end and remove everything after the block."""
    hosts = Hosts()
    try:
        hosts.make()
        hosts.start_ray()
        yield hosts
    finally:
        hosts.close()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
