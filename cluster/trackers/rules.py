"""Checks where a job's trackers may write and connect to: they act as the service's user, although the job names them.

The rules are those of the job's data (`cluster.data.rules`). Names are checked when a job is submitted, symbolic links
when its run begins, and addresses when a connection is made, because a name or a redirect can lead anywhere.
"""

from __future__ import annotations

import ipaddress
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from cluster.data.rules import SourceRules, is_public
from coordinator.job.spec import JobSpec
from stages.errors import UserMistake

_SQLITE = re.compile(r"sqlite(?:\+\w+)?:///(/[^?]*)")
_SERVERS = ("http", "https")
_FROM_ANOTHER_HOST = "jobs from another host may not reach addresses of this machine and its links"


class MayNotReach(Exception):
    """An address that the job's trackers may not reach."""


def require_tracking(spec: JobSpec, rules: SourceRules, *, links: bool = False) -> None:
    """Raise UserMistake with a line for each entry of `tracking` that is not allowed. `links`: follow symbolic links,
    which reads the file system; the service itself does not do that."""
    wanted = spec.tracking
    problems = []
    if isinstance(wanted.tensorboard, str) and (why := _folder_problem(wanted.tensorboard, rules, links)):
        problems.append(f"tracking.tensorboard: got {wanted.tensorboard}, {why}; true writes into the run directory")
    if wanted.mlflow is not None and (why := _mlflow_problem(wanted.mlflow, rules, links)):
        problems.append(f"tracking.mlflow: {why}")
    if problems:
        raise UserMistake("\n".join(problems))


def _folder_problem(path: str, rules: SourceRules, links: bool) -> str:
    if rules.may_write(path, links=links):
        return ""
    if rules.tracking_roots:
        return f"trackers write only below {', '.join(rules.tracking_roots)} here (`pipetrain up --tracking-root`)"
    return "trackers of a job from another host write nothing else here (`pipetrain up --tracking-root` allows folders)"


def _mlflow_problem(uri: str, rules: SourceRules, links: bool) -> str:
    """Return what is wrong with the URI; "" if it is allowed. The text has only its protocol and host, because the URI
    may contain a password."""
    scheme = uri.partition("://")[0].lower()
    if scheme.partition("+")[0] == "sqlite":
        if rules.tracking_roots is None:
            return ""
        found = _SQLITE.fullmatch(uri)
        if found is None:
            return "a database file must be sqlite:/// with an absolute path, and nothing after it"
        why = _folder_problem(found[1], rules, links)
        return why and f"got {found[1]}, {why}"
    if not rules.public_only:
        return ""
    if scheme not in _SERVERS:
        return f"got {scheme[:50]}, a job from another host names a server by http:// or https://"
    host = _host(uri)
    if _is_address(host) and not is_public(host):
        return f"got {host}, {_FROM_ANOTHER_HOST}"
    return ""


def _host(uri: str) -> str:
    try:
        return urlsplit(uri).hostname or ""
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


# connections ---------------------------------------------------------------------------------------------------------

_watched = threading.local()
_hook_lock = threading.Lock()
_hooked = False


@contextmanager
def only_public(wanted: bool = True) -> Iterator[None]:
    """Let this thread connect only to public addresses in the block. Raises MayNotReach otherwise, even if a library
    turns that into another error.

    Python's audit events show every address to which a socket connects; a tracker's library has no hook for that.
    """
    if not wanted:
        yield
        return
    _add_hook()
    refused: list[str] = []
    before, _watched.refused = getattr(_watched, "refused", None), refused
    try:
        yield
    except Exception:
        if refused:
            raise MayNotReach(f"it leads to {refused[-1]}; {_FROM_ANOTHER_HOST}") from None
        raise
    finally:
        _watched.refused = before


def _add_hook() -> None:
    """Add the audit hook once per process, because it cannot be removed."""
    global _hooked
    with _hook_lock:
        if not _hooked:
            sys.addaudithook(_look)
            _hooked = True


def _look(event: str, details: tuple[Any, ...]) -> None:
    if event != "socket.connect":
        return
    refused = getattr(_watched, "refused", None)
    if refused is None:
        return
    address = details[1]
    place = str(address[0]) if isinstance(address, tuple) else os.fsdecode(address)
    if not is_public(place):
        refused.append(place)
        raise MayNotReach(place)  # not an OSError, after which libraries would try again
