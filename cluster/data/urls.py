"""Bringing what is behind a URL, with an eye on where it leads.

An address is looked at when a socket is made for it: whatever a name resolved to a moment ago, and wherever a server
redirects to, it passes there.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from cluster.data.rules import SourceRules, is_public
from coordinator.job.regular_files import too_large
from coordinator.job.source_names import protocol
from stages.errors import InvalidData

_PART_BYTES = 2**20
_CONNECT_S, _SILENCE_S = 30.0, 60.0


def url_parts(url: str, rules: SourceRules) -> Iterator[bytes]:
    """The content in parts. Raises InvalidData where it may not be read, and whatever fsspec raises."""
    refused: list[str] = []
    total = 0
    try:
        with _open(url, rules, refused) as remote:
            while part := remote.read(_PART_BYTES):
                total += len(part)
                if rules.most_bytes is not None and total > rules.most_bytes:
                    raise too_large(total, rules.most_bytes)
                yield part
    except Exception:
        if refused:
            raise InvalidData(
                f"{url}: leads to {refused[-1]}; jobs from another host may not read from addresses of this machine "
                "and its links"
            ) from None
        raise


def _open(url: str, rules: SourceRules, refused: list[str]) -> Any:
    import fsspec

    if protocol(url) not in ("http", "https"):  # their hosts are their providers'
        filesystem, path = fsspec.url_to_fs(url)
        return filesystem.open(path, "rb")
    from fsspec.implementations.http import HTTPFileSystem

    # fsspec.open would take "::" in it for a chain of URLs, and an IPv6 address has that
    web = HTTPFileSystem(get_client=_client_of(rules, refused), skip_instance_cache=True)
    return web.open(url, "rb", block_size=0)  # many servers do not offer to seek


def _client_of(rules: SourceRules, refused: list[str]) -> Callable[..., Awaitable[Any]]:
    import aiohttp

    def make_socket(address: Any) -> socket.socket:
        family, kind, number, _, place = address
        if rules.public_only and not is_public(place[0]):
            refused.append(place[0])
            raise PermissionError(f"{place[0]} may not be reached")
        return socket.socket(family, kind, number)

    async def allowed(request: Any, handler: Any) -> Any:
        if request.url.scheme not in rules.protocols:  # each request of a row of redirects comes by here
            refused.append(f"{request.url.scheme}://, which this service does not read")
            raise aiohttp.ClientError(f"redirected to {request.url.scheme}")
        return await handler(request)

    async def client(**settings: Any) -> Any:
        settings["timeout"] = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENCE_S)
        settings["connector"] = aiohttp.TCPConnector(socket_factory=make_socket)
        return aiohttp.ClientSession(**settings, middlewares=(allowed,))

    return client
