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
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from coordinator.job.regular_files import read_regular
from stages.errors import UserMistake

DEFAULT_HOME = "~/.pipetrain"
_LOCK_S = 0.5
_LARGEST_FILE_BYTES = 100_000
_TOKEN = re.compile(r"[\x21-\x7e]{32,}")
"""What a token must be: long enough that nobody guesses it, and fit for a header."""


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
        """Make what is missing. Raises UserMistake where the home cannot be written, and where the folder is something
        else: one that is not empty and that no service has used, or another user's, who could open it again."""
        try:
            self._require_ours()
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.require_own()
            self.folder.chmod(0o700)
            for folder in (self.runs, self.uploads, self.logs):
                folder.mkdir(exist_ok=True)
        except OSError as error:
            raise UserMistake(f"--home {self.folder}: cannot be used: {error.strerror}") from None

    def require_own(self) -> None:
        """Raise UserMistake where it is another user's: what stands in it would be that user's orders to us."""
        try:
            owner = self.folder.stat().st_uid
        except OSError:
            return
        if owner != os.geteuid():
            raise UserMistake(
                f"--home {self.folder}: belongs to another user (id {owner}), who could open and replace what is "
                "in it; give a folder of your own"
            )

    def _require_ours(self) -> None:
        try:
            names = set(os.listdir(self.folder)) - {"lost+found"}  # every new file system has that
        except FileNotFoundError:
            return
        if names and not self._is_home(names):
            raise UserMistake(
                f"--home {self.folder}: is no home of a service, and is not empty (it has {min(names)}); give a folder "
                "that is empty, or that is not there yet"
            )

    def _is_home(self, names: set[str]) -> bool:
        """Whether a folder that has these entries is a home: `make` has just made it, or a service ran on it, of this
        version or an earlier one. A folder `runs` or `logs` alone is what anybody may have."""
        made = {self.runs.name, self.uploads.name, self.logs.name}
        used = self._lock_file.name in names and bool({self.token_file.name, self.store.name} & names or made <= names)
        return used or names == made

    def run_directory(self, job: str) -> Path:
        """Where a job leaves what it makes."""
        return self.runs / job

    def token(self) -> str:
        """The token that callers must show. Raises UserMistake where there is none, or one that anybody could guess."""
        try:
            token = read_regular(self.token_file, _LARGEST_FILE_BYTES).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserMistake(f"{self.token_file}: cannot be read: {getattr(error, 'strerror', error)}") from None
        if _TOKEN.fullmatch(token):
            return token
        found = "is empty" if not token else f"has {len(token)} characters"
        raise UserMistake(
            f"{self.token_file}: {found}, must have at least 32, all of them visible ASCII and no spaces; "
            "remove the file, and the next `pipetrain up` makes a new token"
        )

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
            self.token()  # an empty one would let everybody in
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
            found = json.loads(read_regular(file, _LARGEST_FILE_BYTES))
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
    try:
        with open(descriptor, "w", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        temporary.replace(file)
    except BaseException:  # a full disk has no room for what is left of it either
        temporary.unlink(missing_ok=True)
        raise
