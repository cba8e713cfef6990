"""The interface as programs in other languages use it: the generated stub, and metadata set by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from cluster.service.home import Home
from cluster.wire import pipetrain_pb2 as pb
from cluster.wire.pipetrain_pb2_grpc import PipetrainStub
from tests.service.running import Service


class Wire:
    """A stub, and the metadata with the token."""

    def __init__(self, service: Service) -> None:
        found = Home.read(service.home.service_file)
        assert found is not None, "no service is up"
        self.address: str = found["grpc"]
        self.http: str = found["http"]
        self.channel = grpc.insecure_channel(self.address)
        self.stub: Any = PipetrainStub(self.channel)  # type: ignore[no-untyped-call]
        self.metadata = (("authorization", f"Bearer {service.home.token()}"),)

    def call(self, method: str, request: Any, timeout: float = 30) -> Any:
        """Make a call; return the answer. Raises grpc.RpcError."""
        return getattr(self.stub, method)(request, metadata=self.metadata, timeout=timeout)

    def refused(self, method: str, request: Any, metadata: Any = None) -> tuple[str, str]:
        """Make a call that must fail; return its status code and message."""
        try:
            answer = getattr(self.stub, method)(request, metadata=metadata or self.metadata, timeout=30)
            list(answer) if isinstance(answer, Iterator) else None
        except grpc.RpcError as error:
            return error.code().name, str(error.details())
        raise AssertionError(f"{method} answered")

    def problems(self, method: str, request: Any) -> list[tuple[str, str]]:
        """Make a call that must fail; return the field violations in its details."""
        try:
            self.call(method, request)
        except grpc.RpcError as error:
            status = rpc_status.from_call(error)
            found = error_details_pb2.BadRequest()
            assert status.details[0].Unpack(found)
            return [(violation.field, violation.description) for violation in found.field_violations]
        raise AssertionError(f"{method} answered")


def upload(content: bytes, sha256: str, *, offset: int = 0, size: int | None = None, ending: str = ".npz") -> Any:
    """Yield the messages of an upload: the header, and `content` in one part unless it is empty."""
    yield pb.UploadRequest(
        header=pb.UploadHeader(
            sha256=sha256, size=len(content) if size is None else size, extension=ending, offset=offset
        )
    )
    if content:
        yield pb.UploadRequest(data=content)
