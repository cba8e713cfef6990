"""The address and the token of the job service: from arguments, else the environment, else the files of its home."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from coordinator.job.regular_files import read_regular
from stages.errors import NoService

ADDRESS_VARIABLE = "PIPETRAIN_ADDRESS"
HOME_VARIABLE = "PIPETRAIN_HOME"
TOKEN_VARIABLE = "PIPETRAIN_TOKEN"
SERVICE_FILE = "service.json"
LOCK_FILE = "service.lock"
TOKEN_FILE = "token"
GIVEN = "the argument"
_LARGEST_FILE_BYTES = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAddress:
    """The address of a service: `target` is HOST:PORT; `source` and `token_source` name where target and token were
    found."""

    target: str
    source: str
    token: str | None
    token_source: str
    home: Path

    @property
    def start_command(self) -> str:
        """The command that starts a service in this home."""
        return command_for(self.home, "up")

    @property
    def is_up(self) -> bool:
        """Whether the address was found in the home and a service has locked that home."""
        return self.source == str(self.home / SERVICE_FILE) and _is_held(self.home)

    @property
    def is_here(self) -> bool:
        """Whether the address is on this machine."""
        host = self.target.rpartition(":")[0]
        return host in ("localhost", "[::1]", "0.0.0.0", "[::]") or host.startswith("127.")


def find_service(address: str | None = None, home: Path | None = None, token: str | None = None) -> ServiceAddress:
    """Find the service. Raises NoService if none is up, or if a file of its home has wrong content."""
    place = find_home(home)
    target, source = _find_target(address, place)
    found, token_source = _find_token(token, place)
    return ServiceAddress(target=target, source=source, token=found, token_source=token_source, home=place)


def find_home(home: Path | None = None) -> Path:
    """Return the service's home: the argument, else PIPETRAIN_HOME, else ~/.pipetrain."""
    named = home or os.environ.get(HOME_VARIABLE) or "~/.pipetrain"
    try:
        return Path(named).expanduser()
    except RuntimeError:  # ~NAME of a user that does not exist
        return Path(named)


def command_for(home: Path, name: str) -> str:
    """Return a command such as `pipetrain up`, with --home if this home is not the default."""
    options = [] if find_home().absolute() == home.absolute() else ["--home", str(home)]
    return shlex.join(["pipetrain", name, *options])


def _find_target(address: str | None, home: Path) -> tuple[str, str]:
    if address is not None:
        return _checked(address, "the address given"), GIVEN
    if named := os.environ.get(ADDRESS_VARIABLE):
        return _checked(named, ADDRESS_VARIABLE), ADDRESS_VARIABLE
    _require_own(home)
    path = home / SERVICE_FILE
    text = _read(path)
    if text is None:
        raise NoService(
            f"no service is up at {home}; start one with `{command_for(home, 'up')}`, give --home (or {HOME_VARIABLE}) "
            "if yours has another home, or give its address"
        )
    try:
        found = _checked(json.loads(text)["grpc"], str(path)), str(path)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise NoService(
            f"{path}: does not contain a service's address; "
            f"end that service with `{command_for(home, 'down')}` and start it again with `{command_for(home, 'up')}`"
        ) from None
    if not _is_held(home):
        raise NoService(
            f"no service answers at {found[0]}: the service of {home} ended without removing {path}; "
            f"start one with `{command_for(home, 'up')}`"
        )
    return found


def _require_own(home: Path) -> None:
    """Raise NoService if the home belongs to another user, unless this user is root. In a shared folder such as /tmp,
    another user could create the home first, and then receive all jobs and their data."""
    try:
        owner = home.stat().st_uid
    except OSError:
        return
    if owner != os.geteuid() != 0:
        raise NoService(
            f"{home}: belongs to another user (id {owner}), who would receive all that you submit; give the home of "
            f"your own service, or set {ADDRESS_VARIABLE} and {TOKEN_VARIABLE} to use that user's service"
        )


def _is_held(home: Path) -> bool:
    """Whether a service has locked this home. If a service was killed, its port is free, and another user could listen
    there to receive its token."""
    try:
        with (home / LOCK_FILE).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # a service has locked it
    return False


def _checked(address: object, source: str) -> str:
    """Return the address if it is HOST:PORT. Raises NoService with its source otherwise."""
    pattern = r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+):(\d{1,5})"
    found = re.fullmatch(pattern, address, re.ASCII) if isinstance(address, str) else None
    if found is None or not 0 < int(found[2]) < 65536:
        raise NoService(f"{source}: got {address!r}, must be HOST:PORT, such as 127.0.0.1:7070")
    return found[0]


def _find_token(token: str | None, home: Path) -> tuple[str | None, str]:
    if token is not None:
        return _printable(token, "the token given"), "the argument `token`"
    if named := os.environ.get(TOKEN_VARIABLE):
        return _printable(named, TOKEN_VARIABLE), TOKEN_VARIABLE
    path = home / TOKEN_FILE
    text = _read(path)
    return (None if text is None else _printable(text, str(path))), str(path)


def _printable(token: str, source: str) -> str:
    """Return the token without white space around it. Raises NoService if it cannot stand in a header."""
    token = token.strip()
    if not re.fullmatch(r"[!-~]+", token):
        what = "is empty" if not token else "contains characters that no token has"
        raise NoService(
            f"{source}: {what}; the token must be the line in the file `{TOKEN_FILE}` of the service's home"
        )
    return token


def _read(path: Path) -> str | None:
    """Return the text of a small file; None if there is no such file."""
    try:
        return read_regular(path, _LARGEST_FILE_BYTES).decode()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError:
        raise NoService(f"{path}: is not text, so a service did not write it") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise NoService(f"{path}: cannot be read: {reason}") from None
