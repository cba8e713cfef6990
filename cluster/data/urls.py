"""Fetches the content of a URL, and checks the addresses to which it leads.

Every address is checked when a socket is made for it, because only then it is certain: a name may resolve to another
address than before, and a server may redirect.
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
    """Yield the content in parts. Raises InvalidData if the rules do not allow it, and any error of fsspec."""
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

    if protocol(url) not in ("http", "https"):  # the other protocols connect to a provider's hosts
        filesystem, path = fsspec.url_to_fs(url)
        return filesystem.open(path, "rb")
    from fsspec.implementations.http import HTTPFileSystem

    # fsspec.open would read "::" in an IPv6 address as a chain of URLs
    web = HTTPFileSystem(get_client=_client_of(rules, refused), skip_instance_cache=True)
    return web.open(url, "rb", block_size=0)  # many servers do not support seeking


def _client_of(rules: SourceRules, refused: list[str]) -> Callable[..., Awaitable[Any]]:
    import aiohttp

    def make_socket(address: Any) -> socket.socket:
        family, kind, number, _, place = address
        if rules.public_only and not is_public(place[0]):
            refused.append(place[0])
            raise PermissionError(f"{place[0]} may not be reached")
        return socket.socket(family, kind, number)

    async def allowed(request: Any, handler: Any) -> Any:
        if request.url.scheme not in rules.protocols:  # called for every redirect, too
            refused.append(f"{request.url.scheme}://, which this service does not read")
            raise aiohttp.ClientError(f"redirected to {request.url.scheme}")
        return await handler(request)

    async def client(**settings: Any) -> Any:
        settings["timeout"] = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENCE_S)
        settings["connector"] = aiohttp.TCPConnector(socket_factory=make_socket)
        return aiohttp.ClientSession(**settings, middlewares=(allowed,))

    return client
