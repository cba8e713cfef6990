"""Turns pipetrain's errors into gRPC status codes, with the list of problems in the details."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from cluster.service.refusals import NoSpace, QueueFull, StoreDamaged, StoreTrouble, SubmissionIdTaken
from cluster.service.store_errors import file_trouble
from cluster.service.uploads import WrongChecksum, WrongOffset
from stages.errors import PipetrainError, Refused, UnknownJob, UserMistake

_log = logging.getLogger(__name__)

_CODES: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (QueueFull, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (NoSpace, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (StoreDamaged, grpc.StatusCode.DATA_LOSS),
    (StoreTrouble, grpc.StatusCode.UNAVAILABLE),
    (SubmissionIdTaken, grpc.StatusCode.ALREADY_EXISTS),
    (WrongOffset, grpc.StatusCode.OUT_OF_RANGE),
    (WrongChecksum, grpc.StatusCode.DATA_LOSS),
    (UnknownJob, grpc.StatusCode.NOT_FOUND),
    (Refused, grpc.StatusCode.FAILED_PRECONDITION),
    (UserMistake, grpc.StatusCode.INVALID_ARGUMENT),
)
"""The first entry whose type matches the error counts."""
_DETAILS = "grpc-status-details-bin"
_MOST_DETAILS_BYTES = 6000  # metadata may hold 8 KiB in all
_MOST_PROBLEMS = 100


@contextlib.asynccontextmanager
async def errors_as_status(context: Any) -> AsyncIterator[None]:
    """End the call with the status of an error raised in the block. A bug becomes INTERNAL and is logged with its
    traceback."""
    try:
        yield
    except PipetrainError as error:
        await _abort(context, error)
    except grpc.aio.AbortError:
        raise
    except Exception as error:
        if (refusal := file_trouble(error)) is not None:
            _log.warning("a call failed: %s", refusal)
            await _abort(context, refusal)
        _log.exception("a call failed")
        await context.abort(
            grpc.StatusCode.INTERNAL, f"a bug in the service: {type(error).__name__}: {error}; see its log"
        )


async def _abort(context: Any, error: PipetrainError) -> NoReturn:
    code = next((code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)
    lines = error.problems if isinstance(error, UserMistake) else (str(error),)
    problems = tuple(
        line.encode("utf-8", "backslashreplace").decode() for line in lines
    )  # protobuf takes only valid UTF-8
    message = "\n".join(problems)[:2000]
    details = _details(code, message, problems)
    await context.abort(code, message, trailing_metadata=((_DETAILS, details.SerializeToString()),))
    raise AssertionError("abort raises")


def _details(code: grpc.StatusCode, message: str, problems: tuple[str, ...]) -> Any:
    request = error_details_pb2.BadRequest()
    for line in problems[:_MOST_PROBLEMS]:
        request.field_violations.add(field=line.partition(": ")[0][:200], description=line[:1000])
        if request.ByteSize() > _MOST_DETAILS_BYTES:
            del request.field_violations[-1]
            break
    if len(request.field_violations) < len(problems):
        left = len(problems) - len(request.field_violations)
        request.field_violations.add(field="", description=f"and {left} more problems")
    detail = any_pb2.Any()
    detail.Pack(request)
    return status_pb2.Status(code=code.value[0], message=message, details=[detail])
