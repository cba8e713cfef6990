"""The service's home: everything that it keeps, in one folder that only its user can read.

token             what callers show
service.json      where the service answers, while it is up
service.lock      held by the service's process, whose number it has; the kernel lets go of it however that ends
ray.json          the Ray head that the service started, so that the next service finds it, or its remains
jobs.sqlite3      the job store
runs/ID/          the run directory of each job
uploads/          data files by the SHA-256 of their content
logs/             the service's own log, and Ray's
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stages.errors import UserMistake

DEFAULT_HOME = "~/.pipetrain"
_LOCK_S = 0.5


class Home:
    """Paths of a home, and the small files in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser().absolute()
        self.store = self.folder / "jobs.sqlite3"
        self.runs = self.folder / "runs"
        self.uploads = self.folder / "uploads"
        self.logs = self.folder / "logs"
        self.service_file = self.folder / "service.json"
        self.ray_file = self.folder / "ray.json"
        self.token_file = self.folder / "token"
        self._lock_file = self.folder / "service.lock"

    def make(self) -> None:
        """Make what is missing. Raises UserMistake where the home cannot be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            for folder in (self.runs, self.uploads, self.logs):
                folder.mkdir(exist_ok=True)
        except OSError as error:
            raise UserMistake(f"--home {self.folder}: cannot be used: {error.strerror}") from None

    def run_directory(self, job: str) -> Path:
        """Where a job leaves what it makes."""
        return self.runs / job

    def token(self) -> str:
        """The token that callers must show."""
        return self.token_file.read_text(encoding="ascii").strip()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Held while a service runs on this home, which then has a token. Raises UserMistake where another one does."""
        with self._lock_file.open("a") as file:
            deadline = time.monotonic() + _LOCK_S
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:  # somebody may only be looking (`is_locked`)
                    if time.monotonic() > deadline:
                        raise UserMistake(self.describe_service()) from None
                time.sleep(0.02)
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            if not self.token_file.exists():
                write_private(self.token_file, secrets.token_hex(32) + "\n")
            yield

    def is_locked(self) -> bool:
        """Whether a service process runs on this home."""
        try:
            with self._lock_file.open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def holder(self) -> int | None:
        """The process of the service that runs on this home; None where none does."""
        if not self.is_locked():
            return None
        try:
            return int(self._lock_file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None  # it takes the home this moment

    def describe_service(self) -> str:
        """One line about the service that runs here."""
        found = self.read(self.service_file)
        if found is None or not {"grpc", "http"} <= found.keys():
            return f"a service is starting or ending at {self.folder}"
        return (
            f"the service of {self.folder} is up: gRPC {found['grpc']}, HTTP {found['http']}, process {self.holder()}"
        )

    @staticmethod
    def read(file: Path) -> dict[str, Any] | None:
        """One of the JSON files; None where it is not there, or not whole."""
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    @staticmethod
    def write(file: Path, content: Mapping[str, Any]) -> None:
        """Write one of the JSON files, whole or not at all."""
        write_private(file, json.dumps(content, indent=2) + "\n")


def write_private(file: Path, text: str) -> None:
    """Write a file that only its user can read, whole or not at all."""
    temporary = file.with_name(f".{file.name}.part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    temporary.replace(file)
