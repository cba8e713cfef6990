"""The errors of failed calls: one table from gRPC's status codes to our errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from cluster.client.address import GIVEN, SERVICE_FILE, TOKEN_FILE, ServiceAddress, command_for
from stages.errors import InvalidJob, NoService, PipetrainError, Refused, UnknownJob

Code = grpc.StatusCode

_ENDED = ("socket closed", "goaway", "connection reset")
"""Signs in gRPC's text that the other side closed an open connection. Which one appears depends on the timing."""
TRANSIENT = (Code.UNAVAILABLE,)
"""The status codes while a service is being started again."""


def error_of(failure: Any, address: ServiceAddress, deadline_s: float | None = None) -> PipetrainError:
    """Return our error for a failed call, which is a grpc.RpcError that is also a grpc.Call."""
    make = _ERRORS.get(failure.code(), _unknown)
    return make(failure, address, deadline_s)


def never_connected(failure: Any) -> bool:
    """Whether no connection came about, so that nothing of the call can have reached a service."""
    text = str(failure.details() or "").lower()
    return failure.code() is Code.UNAVAILABLE and any(sign in text for sign, _ in _NO_CONNECTION)


def _invalid(failure: Any, address: ServiceAddress, deadline_s: float | None) -> PipetrainError:
    return InvalidJob(_violations(failure) or _lines(failure))


def _unknown_job(failure: Any, address: ServiceAddress, deadline_s: float | None) -> PipetrainError:
    return UnknownJob(_text(failure))


def _refused(failure: Any, address: ServiceAddress, deadline_s: float | None) -> PipetrainError:
    return Refused(_text(failure))


def _too_old(failure: Any, address: ServiceAddress, deadline_s: float | None) -> PipetrainError:
    return Refused(
        f"the server at {address.target} does not know this call ({_text(failure)}): "
        "it has another version of pipetrain, or is no job service"
    )


def _stranger(failure: Any, address: ServiceAddress, deadline_s: float | None) -> PipetrainError:
    if address.token is None:
        why = f"requires a token and there is none: set PIPETRAIN_TOKEN, or make {address.token_source} readable"
    elif {address.source, address.token_source} == {str(address.home / name) for name in (SERVICE_FILE, TOKEN_FILE)}:
        why = (
            f"does not accept the token from {address.token_source}: the file was replaced after the service's start; "
            f"run `{command_for(address.home, 'down')}` and `{address.start_command}`, so that the service reads it"
        )
    else:
        why = (
            f"does not accept the token from {address.token_source}; use the one in the file `token` of the service's "
            "home"
        )
    return NoService(f"the service at {address.target} {why}")


def _silent(failure: Any, address: ServiceAddress, deadline_s: float | None) -> PipetrainError:
    waited = "" if deadline_s is None else f" within {deadline_s:g} s"
    return NoService(f"the service at {address.target} did not answer{waited}; is it busy, or the network broken?")


def _cut(failure: Any, address: ServiceAddress, deadline_s: float | None) -> PipetrainError:
    return NoService(f"the service at {address.target} closed the connection, or sent nothing for too long")


def is_answer(failure: Any) -> bool:
    """Whether the service itself answered that it cannot do the call now, and not the network."""
    return failure.code() is Code.UNAVAILABLE and bool(_violations(failure))


def _absent(failure: Any, address: ServiceAddress, deadline_s: float | None) -> PipetrainError:
    text = _text(failure)
    if is_answer(failure):
        return Refused(text)
    if foreign := next((what for sign, what in _NO_GRPC if sign in text.lower()), None):
        return NoService(
            f"{address.target} {foreign}, not gRPC: is it the dashboard's port? The gRPC port is 7070 by default"
        )
    known = next((short for sign, short in _NO_CONNECTION if sign in text.lower()), None)
    if known is None and not any(sign in text.lower() for sign in _ENDED):
        known = text
    if known is None and address.is_up:
        return NoService(
            f"the service of {address.home} is up at {address.target}, but closed the connection: it has as many "
            f"connections as it accepts, or is ending; {address.home}/logs/service.log says which"
        )
    named = "" if address.source == GIVEN else f"; the address is from {address.source}"
    start = f"start one with `{address.start_command}`" if address.is_here else "is it up?"
    return NoService(f"no service answers at {address.target} ({known or 'it closed the connection'}{named}); {start}")


def _unknown(failure: Any, address: ServiceAddress, deadline_s: float | None) -> PipetrainError:
    return PipetrainError(f"the service at {address.target} failed: {failure.code().name}: {_text(failure)}")


_NO_GRPC = (("http1.x server", "speaks HTTP/1"), ("failed parsing http/2", "speaks something else"))
"""Signs in gRPC's text that another kind of server answers there, and how a message describes that server."""

_NO_CONNECTION = (
    ("connection refused", "connection refused"),
    ("no route to host", "no route to the host"),
    ("network is unreachable", "the network is unreachable"),
    ("dns resolution failed", "no host has that name"),
    ("errors resolving", "no host has that name"),
    ("name resolution", "no host has that name"),
    ("connection timed out", "the connection timed out"),
    ("failed to connect to all addresses", "no connection"),
)
"""Signs in gRPC's text that no connection came about, and how a message says it."""

_ERRORS: dict[grpc.StatusCode, Callable[[Any, ServiceAddress, float | None], PipetrainError]] = {
    Code.INVALID_ARGUMENT: _invalid,
    Code.NOT_FOUND: _unknown_job,
    Code.RESOURCE_EXHAUSTED: _refused,
    Code.FAILED_PRECONDITION: _refused,
    Code.ABORTED: _refused,
    Code.ALREADY_EXISTS: _refused,
    Code.DATA_LOSS: _refused,
    Code.OUT_OF_RANGE: _refused,
    Code.UNIMPLEMENTED: _too_old,
    Code.UNAUTHENTICATED: _stranger,
    Code.PERMISSION_DENIED: _stranger,
    Code.UNAVAILABLE: _absent,
    Code.DEADLINE_EXCEEDED: _silent,
    Code.CANCELLED: _cut,
}


def _violations(failure: Any) -> list[str]:
    """Return a line for each problem of the google.rpc.BadRequest in the failure; empty if it has none."""
    try:
        status = rpc_status.from_call(failure)
    except ValueError:  # the details do not match the failure's status
        return []
    lines: list[str] = []
    for detail in [] if status is None else status.details:
        request = error_details_pb2.BadRequest()
        if detail.Is(request.DESCRIPTOR) and detail.Unpack(request):
            lines += [violation.description or violation.field for violation in request.field_violations]
    return lines


def _lines(failure: Any) -> list[str]:
    return str(failure.details() or "").splitlines() or ["the service rejected the request without a reason"]


def _text(failure: Any) -> str:
    """Return the failure's text, a line for each problem; of a text by gRPC itself only its last cause."""
    lines = str(failure.details() or "no reason given").splitlines()
    return "\n".join(" ".join(line.split()) for line in lines).rpartition("last error: ")[2]
