"""Rules for the data that a job may read and the places where its trackers may write: the operator's limits, and those
for jobs from another host.

The service passes the rules to the processes that read (its readers, the runner, the workers). They are checked when a
file is opened and when a connection is made, because host names, redirects and symbolic links can change at any time.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from coordinator.job.schedule_names import AUTO, SCHEDULES
from coordinator.job.source_names import BUILT_IN, PROTOCOLS, files_named, local_path, protocol
from coordinator.job.spec import JobSpec
from stages.errors import InvalidData

_METADATA = tuple(map(ipaddress.ip_address, ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254")))
"""Addresses at which clouds give a machine its secrets, besides the link-local ones."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRules:
    """Limits for reading data and writing to trackers.

    `roots` are the folders below which local files may be read; None means all. `protocols` are the allowed protocols
    of URLs. `public_only` forbids addresses of this machine and link-local ones. `files` are uploaded files, which are
    always allowed. `most_bytes` is the largest allowed source. `tracking_roots` are the folders below which trackers
    may write, besides the run directory; None means all.
    """

    roots: tuple[str, ...] | None = None
    protocols: tuple[str, ...] = PROTOCOLS
    public_only: bool = False
    files: tuple[str, ...] = ()
    most_bytes: int | None = None
    tracking_roots: tuple[str, ...] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the rules as plain values."""
        return asdict(self)

    @staticmethod
    def from_dict(given: Mapping[str, Any]) -> SourceRules:
        """Return the rules from the result of `as_dict`."""
        values: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in given.items()}
        return SourceRules(**values)

    def with_files(self, files: Iterable[str]) -> SourceRules:
        """Return the same rules with other uploaded files."""
        return replace(self, files=tuple(files))

    def for_job(self, *, remote: bool) -> SourceRules:
        """Return the rules for one job. `remote`: the job came from another host, so it may not connect to addresses of
        this host, and its trackers may write only into its run directory and `tracking_roots`."""
        roots = () if remote and self.tracking_roots is None else self.tracking_roots
        return replace(self, public_only=remote, tracking_roots=roots)

    def may_write(self, path: str, *, links: bool) -> bool:
        """Whether trackers may write below this absolute path; `links`: follow symbolic links."""
        if self.tracking_roots is None:
            return True
        if not any(_below(os.path.normpath(path), os.path.normpath(root)) for root in self.tracking_roots):
            return False
        real = os.path.realpath(path) if links else ""
        return not links or any(_below(real, os.path.realpath(root)) for root in self.tracking_roots)

    def require_protocol(self, source: str) -> None:
        """Raise InvalidData if the operator does not allow the protocol of the source."""
        if source not in BUILT_IN and source not in self.files and protocol(source) not in self.protocols:
            allowed = ", ".join(self.protocols) or "none"
            raise InvalidData(f"{source}: {protocol(source)} is not read by this service, only {allowed}")

    def require_place(self, path: str, descriptor: int | None = None) -> None:
        """Raise InvalidData if a path is not below one of `roots` after its links and `..` are resolved.

        `descriptor` is the opened file; if it is given, the check uses the real path of that file.
        """
        if self.roots is None or path in self.files:
            return
        wanted = f"/proc/self/fd/{descriptor}" if descriptor is not None else path
        real = os.path.realpath(wanted if os.path.lexists(wanted) else path)
        if not any(_below(real, os.path.realpath(root)) for root in self.roots):
            raise InvalidData(f"{path}: local files are read only below {', '.join(self.roots)} by this service")

    def require_schedule(self, spec: JobSpec) -> None:
        """Raise InvalidData if the rules do not allow the job's schedule file."""
        if spec.pipeline.schedule not in (*SCHEDULES, AUTO):
            self.require_protocol(spec.pipeline.schedule)
            self.require_place(spec.pipeline.schedule)


FREE = SourceRules()
"""No limits, for commands that read data for their own user."""


def local_files(spec: JobSpec) -> list[str]:
    """Return the paths of local files that a job names: data, a schedule, a tokenizer, weights to begin with."""
    named = files_named(spec.document())
    schedule = named.pop("pipeline.schedule", None)
    paths = [path for path in map(local_path, named.values()) if path is not None]
    return paths + ([] if schedule is None else [schedule])


def is_public(address: str) -> bool:
    """Whether an address is neither of this machine, nor link-local, nor one at which a cloud gives out secrets.

    Addresses of private networks are public in this sense, because an organisation's own data server may have one.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return not any(_is_own(one) for one in _meant(found))


def _is_own(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address) and address.packed[0] == 0:  # 0.0.0.0/8 is "this host"
        return True
    kinds = (address.is_loopback, address.is_link_local, address.is_unspecified, address.is_multicast)
    return any(kinds) or address in _METADATA


def _meant(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Return the address, and the IPv4 addresses that it contains."""
    meant: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64 or not any(address.packed[:12]):  # 64:ff9b::a.b.c.d, and the old ::a.b.c.d
            inner.append(ipaddress.IPv4Address(address.packed[12:]))
        meant += [one for one in inner if one is not None]
    return meant


def _below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def require_rules(spec: JobSpec, rules: SourceRules, uploaded: Collection[str]) -> None:
    """Raise InvalidData if the rules do not allow the protocol of a job's file. `uploaded` files are always allowed."""
    for source in files_named(spec.document()).values():
        if source not in uploaded:
            rules.require_protocol(source)
