"""The local Ray cluster of a service: one head process in a session of its own, which outlives the service.

It is started through `main` here, which keeps it on loopback (see `cluster.actors.ray_session`).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from cluster.actors.disk_room import full_for_ray
from cluster.actors.host_processes import end_session, in_session, works_in
from cluster.actors.private_folders import (
    PrivateFolder,
    is_private_folder,
    make_private_folder,
    short_base,
    sweep_leftovers,
)
from cluster.actors.ray_session import LOOPBACK, OBJECT_STORE_BYTES, QUIET_RAY, RAY_FOLDER, loopback, without_idlers
from cluster.service.home import Home
from stages.errors import NotEnoughResources

_START_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RayHead:
    """A Ray head that was started. `session` is the number of its process, and of the session of all it started.
    `address` is empty until it is up: only Ray knows the port before somebody listens there. One that is chosen before,
    and read by another user in Ray's command line, could be taken by that user, who is then shown the token."""

    session: int
    address: str
    token: str
    folder: str
    cpus: int

    @staticmethod
    def start(home: Home, cpus: int) -> RayHead:
        """Start a head with `cpus` CPUs to give away. Raises NotEnoughResources with Ray's reason, or the disk's."""
        try:
            sweep_leftovers()
            return RayHead._start(home, cpus, make_private_folder(short_base()))
        except OSError as error:
            raise NotEnoughResources(
                f"Ray cannot start here: {os.strerror(error.errno or 0).lower()}: {error.filename or home.folder}"
            ) from None

    @staticmethod
    def _start(home: Home, cpus: int, folder: PrivateFolder) -> RayHead:
        token, log = secrets.token_hex(32), home.logs / "ray-head.log"
        command = [
            *(sys.executable, "-m", "cluster.service.ray_head", "start", "--head", "--block"),
            *("--node-ip-address", LOOPBACK, "--port", "0", "--num-cpus", str(cpus)),
            *("--temp-dir", str(folder.path / RAY_FOLDER), "--object-store-memory", str(OBJECT_STORE_BYTES)),
            *("--include-dashboard", "false", "--dashboard-port", "0"),
        ]
        try:
            with log.open("wb") as output:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    env={**os.environ, **ray_environment(token)},
                    cwd=folder.path,
                    pass_fds=(folder.lock,),  # the head outlives this service, and so does its claim to the folder
                )
        except BaseException:
            folder.remove()
            raise
        folder.let_go()
        head = RayHead(session=process.pid, address="", token=token, folder=str(folder.path), cpus=cpus)
        try:
            home.write(home.ray_file, asdict(head))  # before it begins: whoever comes next must find what to clean up
            _let_begin(process)
            there = replace(head, address=head._await_start(process, log))
            home.write(home.ray_file, asdict(there))
        except BaseException:
            head.end(home)  # where it could not be noted, nobody else knows of it
            raise
        return there

    def _await_start(self, process: subprocess.Popen[bytes], log: Path) -> str:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not (address := _announced_address(Path(self.folder))):
            if process.poll() is not None or time.monotonic() > deadline:
                why = full_for_ray(self.folder) or f"{_last_line(log)} (all of it is in {log})"
                raise NotEnoughResources(f"Ray cannot start here: {why}")
            time.sleep(0.05)
        return address

    @staticmethod
    def left_by_another(home: Home) -> RayHead | None:
        """The head in ray.json, alive or not; None where there is none, or a joined cluster's note."""
        found = home.read(home.ray_file) or {}
        if {name: type(value).__name__ for name, value in found.items()} != {f.name: f.type for f in fields(RayHead)}:
            return None
        head = RayHead(**found)
        return head if is_private_folder(head.folder) else None  # it will be removed with all that is in it

    def alive(self) -> bool:
        """Whether the head came up and its own process lives; it ends itself when one of Ray's servers dies."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.session, os.WNOHANG)  # a child that ended would stay a zombie
        return bool(self.address) and self.session in self._processes()

    def _processes(self) -> list[int]:
        """All of its session; none where that number is by now of a session of something else, of another user even,
        who waits at this Ray's old address: Ray's own processes work in its folder."""
        found = in_session(self.session)
        return found if any(works_in(pid, self.folder) for pid in found) else []

    def end(self, home: Home) -> bool:
        """End every process of this Ray and remove its files. May be called twice. False if some do not end."""
        gone = not self._processes() or end_session(self.session)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.session, os.WNOHANG)
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # a home that is gone, or read-only: who reads it finds nothing to end
            home.ray_file.unlink(missing_ok=True)
        return gone


def ray_environment(token: str | None) -> dict[str, str]:
    """Ray's settings. BLAS gets one thread a process, which a worker of more CPUs changes for itself."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    auth = {} if token is None else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    return {**QUIET_RAY, **threads, **auth}


def _announced_address(folder: Path) -> str:
    """Where the head is, as it writes when all of it is up; empty before."""
    try:
        return (folder / RAY_FOLDER / "ray_current_cluster").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _let_begin(process: subprocess.Popen[bytes]) -> None:
    """See `main`."""
    assert process.stdin is not None, "it was asked for"
    with contextlib.suppress(BrokenPipeError), process.stdin:  # one that has ended already says why in its log
        process.stdin.write(b"begin\n")


def main() -> None:
    """The `ray` command, on loopback; once whoever started this has noted it, and not at all if it was killed before: a
    Ray that nobody knows of would stay for ever."""
    if not sys.stdin.readline():
        return
    from ray.scripts.scripts import main as ray_command

    with loopback(), without_idlers():
        ray_command()


if __name__ == "__main__":
    main()
