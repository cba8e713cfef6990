"""The service's own local Ray cluster: a head process in a session of its own, which outlives the service.

`main` in this module starts it and restricts it to loopback (see `cluster.actors.ray_session`).
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
    """A Ray head that was started. `session` is the id of its process, and of the session of all its processes.
    `address` is empty until it is up, because Ray chooses the port itself: another user could read a port in Ray's
    command line, listen there first, and then receive the token."""

    session: int
    address: str
    token: str
    folder: str
    cpus: int

    @staticmethod
    def start(home: Home, cpus: int) -> RayHead:
        """Start a head that offers `cpus` CPUs. Raises NotEnoughResources with Ray's or the disk's reason."""
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
                    pass_fds=(folder.lock,),  # the head keeps the folder locked when this service has ended
                )
        except BaseException:
            folder.remove()
            raise
        folder.let_go()
        head = RayHead(session=process.pid, address="", token=token, folder=str(folder.path), cpus=cpus)
        try:
            home.write(home.ray_file, asdict(head))  # before it begins: the next service must find what to clean up
            _let_begin(process)
            there = replace(head, address=head._await_start(process, log))
            home.write(home.ray_file, asdict(there))
        except BaseException:
            head.end(home)  # a head that is not noted would never be ended
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
        """Return the head in ray.json, alive or not; None if there is none, or if the file has a joined cluster."""
        found = home.read(home.ray_file) or {}
        if {name: type(value).__name__ for name, value in found.items()} != {f.name: f.type for f in fields(RayHead)}:
            return None
        head = RayHead(**found)
        return head if is_private_folder(head.folder) else None  # `end` removes this folder with its content

    def alive(self) -> bool:
        """Whether the head came up and its process lives. It ends itself if one of Ray's servers dies."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.session, os.WNOHANG)  # an ended child stays a zombie until it is waited for
        return bool(self.address) and self.session in self._processes()

    def _processes(self) -> list[int]:
        """Return the processes of the head's session. Return none if no process of it works in Ray's folder: then
        another program has the session's number by now, perhaps another user's."""
        found = in_session(self.session)
        return found if any(works_in(pid, self.folder) for pid in found) else []

    def end(self, home: Home) -> bool:
        """End every process of this Ray and remove its files; False if some do not end. A second call does no harm."""
        gone = not self._processes() or end_session(self.session)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.session, os.WNOHANG)
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # a home that is gone or read-only; a stale ray.json does no harm
            home.ray_file.unlink(missing_ok=True)
        return gone


def ray_environment(token: str | None) -> dict[str, str]:
    """Return Ray's settings as environment variables. BLAS gets one thread in each process; a worker with more CPUs
    changes that for itself."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    auth = {} if token is None else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    return {**QUIET_RAY, **threads, **auth}


def _announced_address(folder: Path) -> str:
    """Return the head's address, which Ray writes once all its servers are up; "" before."""
    try:
        return (folder / RAY_FOLDER / "ray_current_cluster").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "Ray printed no reason"


def _let_begin(process: subprocess.Popen[bytes]) -> None:
    """Let `main` in that process go on."""
    assert process.stdin is not None, "stdin is a pipe"
    with contextlib.suppress(BrokenPipeError), process.stdin:  # the process has ended; its log says why
        process.stdin.write(b"begin\n")


def main() -> None:
    """Run the `ray` command on loopback, after the service has noted this process in ray.json and written a line to
    its standard input. If the service ends before, do nothing: a Ray that is not noted would never be ended."""
    if not sys.stdin.readline():
        return
    from ray.scripts.scripts import main as ray_command

    with loopback(), without_idlers():
        ray_command()


if __name__ == "__main__":
    main()
