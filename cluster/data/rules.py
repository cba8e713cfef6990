"""What may be read on behalf of a job, and where its trackers may write: the operator's limits, and those for jobs that
came from another host.

Rules travel from the service to whoever reads (its readers, the runner, the workers), and hold where a file is opened
and where a connection is made: names of hosts, redirects and symbolic links lead elsewhere at any time.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from coordinator.job.source_names import BUILT_IN, PROTOCOLS, files_named, local_path, protocol
from coordinator.job.spec import JobSpec
from coordinator.schedules import SCHEDULES
from stages.errors import InvalidData

_METADATA = tuple(map(ipaddress.ip_address, ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254")))
"""Where clouds tell a machine its secrets, besides the link-local addresses."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRules:
    """Limits of what is read.

    `roots` are folders below which local files may lie; None for any. `protocols` are what a URL may begin with.
    `public_only` refuses the addresses of this machine and its links. `files` are uploaded ones, which are always read.
    `most_bytes` is the largest source. `tracking_roots` are folders below which trackers may write, besides the run
    directory; None for any.
    """

    roots: tuple[str, ...] | None = None
    protocols: tuple[str, ...] = PROTOCOLS
    public_only: bool = False
    files: tuple[str, ...] = ()
    most_bytes: int | None = None
    tracking_roots: tuple[str, ...] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The rules as plain values."""
        return asdict(self)

    @staticmethod
    def from_dict(given: Mapping[str, Any]) -> SourceRules:
        """The rules that `as_dict` gave."""
        values: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in given.items()}
        return SourceRules(**values)

    def with_files(self, files: Iterable[str]) -> SourceRules:
        """The same, with other uploaded files."""
        return replace(self, files=tuple(files))

    def for_job(self, *, remote: bool) -> SourceRules:
        """The same for one job. `remote`: it came from another host, so that it reaches nothing of this one's network,
        and its trackers write only into its run directory and the folders that the operator named."""
        roots = () if remote and self.tracking_roots is None else self.tracking_roots
        return replace(self, public_only=remote, tracking_roots=roots)

    def may_write(self, path: str, *, links: bool) -> bool:
        """Whether trackers may write below this absolute path; `links`: wherever it leads."""
        if self.tracking_roots is None:
            return True
        if not any(_below(os.path.normpath(path), os.path.normpath(root)) for root in self.tracking_roots):
            return False
        real = os.path.realpath(path) if links else ""
        return not links or any(_below(real, os.path.realpath(root)) for root in self.tracking_roots)

    def require_protocol(self, source: str) -> None:
        """Raise InvalidData for a source whose protocol the operator does not allow."""
        if source not in BUILT_IN and source not in self.files and protocol(source) not in self.protocols:
            allowed = ", ".join(self.protocols) or "none"
            raise InvalidData(f"{source}: {protocol(source)} is not read by this service, only {allowed}")

    def require_place(self, path: str, descriptor: int | None = None) -> None:
        """Raise InvalidData for a path that leads out of the folders which may be read; links and `..` are followed.

        `descriptor` is the file as it was opened: where it truly is counts then.
        """
        if self.roots is None or path in self.files:
            return
        wanted = f"/proc/self/fd/{descriptor}" if descriptor is not None else path
        real = os.path.realpath(wanted if os.path.lexists(wanted) else path)
        if not any(_below(real, os.path.realpath(root)) for root in self.roots):
            raise InvalidData(f"{path}: local files are read only below {', '.join(self.roots)} by this service")

    def require_schedule(self, spec: JobSpec) -> None:
        """Raise InvalidData for a schedule file that may not be read."""
        if spec.pipeline.schedule not in SCHEDULES:
            self.require_protocol(spec.pipeline.schedule)
            self.require_place(spec.pipeline.schedule)


FREE = SourceRules()
"""No limits: what a command reads for its own user."""


def local_files(spec: JobSpec) -> list[str]:
    """The paths of local files that a job names: data, a schedule, a tokenizer, weights to begin with."""
    named = files_named(spec.document())
    schedule = named.pop("pipeline.schedule", None)
    paths = [path for path in map(local_path, named.values()) if path is not None]
    return paths + ([] if schedule is None else [schedule])


def is_public(address: str) -> bool:
    """Whether an address is neither of this machine, nor of one of its links, nor where a cloud tells its secrets.

    Private networks are public in this sense: a house's own data server is there.
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
    """The address, and the IPv4 one that stands in it."""
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
    """Raise InvalidData for a job whose URLs have a protocol that may not be read; `uploaded` are read from here."""
    for source in files_named(spec.document()).values():
        if source not in uploaded:
            rules.require_protocol(source)
