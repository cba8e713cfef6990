"""The service's home: a folder with everything that the service keeps, which only its user can read.

token             the token that callers must send
service.json      the service's addresses, while it is up
service.lock      locked by the service's process, with its process id; the kernel unlocks it however the process ends
ray.json          the Ray head that the service started: the next service takes over that Ray, or ends its leftovers
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
"""The form of a token: too long to guess, and valid in a header."""


class Home:
    """The paths of a home, and its small files."""

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
        """Make the missing folders. Raises UserMistake if the home cannot be written, if the folder has other content
        than a home's, or if it belongs to another user, who could make it readable again."""
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
        """Raise UserMistake if the folder belongs to another user, whose files would control the service."""
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
            names = set(os.listdir(self.folder)) - {"lost+found"}  # every new ext4 file system has it
        except FileNotFoundError:
            return
        if names and not self._is_home(names):
            raise UserMistake(
                f"--home {self.folder}: is not the home of a service, and is not empty (it has {min(names)}); give an "
                "empty folder, or one that does not exist yet"
            )

    def _is_home(self, names: set[str]) -> bool:
        """Whether a folder with these entries is a home: `make` has just made it, or a service of this or an earlier
        version ran on it. `runs` or `logs` alone prove nothing: other folders have them too."""
        made = {self.runs.name, self.uploads.name, self.logs.name}
        used = self._lock_file.name in names and bool({self.token_file.name, self.store.name} & names or made <= names)
        return used or names == made

    def run_directory(self, job: str) -> Path:
        """The run directory of a job."""
        return self.runs / job

    def token(self) -> str:
        """The token that callers must send. Raises UserMistake if it is missing or too easy to guess."""
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
        """Lock the home while a service runs on it, and make its token if it has none. Raises UserMistake if another
        service runs on it."""
        with self._lock_file.open("a") as file:
            deadline = time.monotonic() + _LOCK_S
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:  # another process may only be testing the lock (`is_locked`)
                    if time.monotonic() > deadline:
                        raise UserMistake(self.describe_service()) from None
                time.sleep(0.02)
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            if not self.token_file.exists():
                write_private(self.token_file, secrets.token_hex(32) + "\n")
            self.token()  # raises if it is empty, which would let everybody in
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
        """The process id of the service that runs on this home; None if no service does."""
        if not self.is_locked():
            return None
        try:
            return int(self._lock_file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None  # a service is just starting and has not written its process id

    def describe_service(self) -> str:
        """A line about the service that runs on this home."""
        found = self.read(self.service_file)
        if found is None or not {"grpc", "http"} <= found.keys():
            return f"a service is starting or ending at {self.folder}"
        return (
            f"the service of {self.folder} is up: gRPC {found['grpc']}, HTTP {found['http']}, process {self.holder()}"
        )

    @staticmethod
    def read(file: Path) -> dict[str, Any] | None:
        """The content of one of the JSON files; None if the file is missing or not valid."""
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
    except BaseException:  # on a full disk, the incomplete file would take room
        temporary.unlink(missing_ok=True)
        raise
