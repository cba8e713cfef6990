"""`python -m benchmarks.service_load`: a process with many clients of a job service, started by `benchmarks.service`.

Each line on stdin is a JSON object whose `do` names the task; the answer is a line of JSON on stdout. All clients of a
process share one event loop; each has a connection of its own, or they share `channels` connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc

from cluster.client.address import find_service
from cluster.wire import pipetrain_pb2 as pb
from cluster.wire import pipetrain_pb2_grpc
from cluster.wire.convert import row_from_wire, state_name

CALL_S = 60.0
_CONNECT_S = 30.0
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 64 * 2**20))


class Clients:
    """Opens connections to the service of a home."""

    def __init__(self, home: str, stack: AsyncExitStack) -> None:
        self._address, self._stack = find_service(home=Path(home)), stack
        self.metadata = (("authorization", f"Bearer {self._address.token}"),)

    async def connect(self) -> Any:
        """Open a connection, make a first call over it, and return the methods of the service."""
        channel = grpc.aio.insecure_channel(self._address.target, options=_OPTIONS)
        await self._stack.enter_async_context(channel)
        async with asyncio.timeout(_CONNECT_S):
            await channel.channel_ready()
        stub = pipetrain_pb2_grpc.PipetrainStub(channel)  # type: ignore[no-untyped-call]
        await stub.Cluster(pb.ClusterRequest(), timeout=CALL_S, metadata=self.metadata)  # the first call is slower
        return stub


async def submit(order: Mapping[str, Any]) -> dict[str, Any]:
    """Let `clients` clients submit `document`, each one job after the other, from the time `begin` on.

    They submit `jobs` in all, or for `seconds`; in all `rate` a second, if it is not 0. With `stop` each job is stopped
    at once. A file in the folder `into` gets the ids and the seconds of each Submit.
    """
    ids: list[str] = []
    taken: list[float] = []
    text = json.dumps(order["document"])
    places = iter(range(int(order.get("jobs", 10**6))))
    n_clients, rate = int(order["clients"]), float(order.get("rate", 0))
    async with AsyncExitStack() as stack:
        clients = Clients(order["home"], stack)
        stubs = [await clients.connect() for _ in range(n_clients)]
        await asyncio.sleep(max(0.0, float(order["begin"]) - time.time()))
        began, cpu = time.monotonic(), time.process_time()
        end = began + float(order.get("seconds", 300.0))

        async def client(number: int, stub: Any) -> None:
            for turn, _ in enumerate(places):
                if rate:
                    due = began + (turn * n_clients + number) / rate
                    await asyncio.sleep(due - time.monotonic())
                sent = time.monotonic()
                if sent >= end:
                    return
                answer = await stub.Submit(pb.SubmitRequest(document=text), timeout=CALL_S, metadata=clients.metadata)
                taken.append(time.monotonic() - sent)
                ids.append(answer.id)
                if order.get("stop"):
                    await stub.Stop(pb.StopRequest(id=answer.id), timeout=CALL_S, metadata=clients.metadata)

        await asyncio.gather(*(client(number, stub) for number, stub in enumerate(stubs)))
        lasted, used = time.monotonic() - began, time.process_time() - cpu
    Path(order["into"], f"{os.getpid()}.json").write_text(json.dumps({"ids": ids, "seconds": taken}))
    return {"jobs": len(ids), "lasted": lasted, "cpu": used}


async def watch(order: Mapping[str, Any]) -> dict[str, Any]:
    """Let `watchers` watch `job` over `channels` connections until it has ended, or for `seconds`; `late` of them begin
    after `late_after` rows.

    Answers twice: first when all but the late ones have their first update; then at the end, with the number of
    watchers by the rows that they got (a digest in order), the number that got the final state last, and the CPU
    seconds of this process.
    """
    seen: list[list[Any]] = []
    last: list[str] = []
    n_watchers, n_late = int(order["watchers"]), int(order.get("late", 0))
    go = asyncio.Event()
    async with AsyncExitStack() as stack:
        clients = Clients(order["home"], stack)
        stubs = [await clients.connect() for _ in range(int(order["channels"]))]
        ready = asyncio.Semaphore(0)

        async def watcher(number: int) -> None:
            if number >= n_watchers - n_late:
                await go.wait()
            rows: list[Any] = []
            seen.append(rows)
            state = ""
            request = pb.WatchRequest(id=order["job"], from_now=order.get("from_now", False))
            try:
                call = stubs[number % len(stubs)].Watch(
                    request, timeout=float(order["seconds"]), metadata=clients.metadata
                )
                async for update in call:
                    if not state:
                        ready.release()
                    rows.extend(update.rows)
                    state = state_name(update.job.state) if update.HasField("job") else state or "?"
                    if number == 0 and len(rows) >= int(order.get("late_after", 0)):
                        go.set()
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise
                state = "DEADLINE"
            go.set()
            last.append(state)

        cpu = time.process_time()
        tasks = [asyncio.ensure_future(watcher(number)) for number in range(n_watchers)]
        for _ in range(n_watchers - n_late):
            async with asyncio.timeout(CALL_S):
                await ready.acquire()
        tell({"ready": n_watchers - n_late})
        await asyncio.gather(*tasks)
        used = time.process_time() - cpu
    digests = Counter(digest(row_from_wire(row).as_dict() for row in rows) for rows in seen)
    return {"digests": digests, "states": Counter(last), "rows": sum(map(len, seen)), "cpu": used}


def digest(rows: Iterator[Mapping[str, Any]]) -> str:
    """Return a digest of a list of rows."""
    return hashlib.sha256("\n".join(json.dumps(dict(row), sort_keys=True) for row in rows).encode()).hexdigest()


def step_aside() -> None:
    """Use only CPU time that no other process needs. Linux may weigh sessions first, and processes within them."""
    os.nice(19 - os.nice(0))
    if os.getsid(0) != os.getpid():
        os.setsid()
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("19")


def tell(answer: Mapping[str, Any]) -> None:
    """Answer."""
    print(json.dumps(answer), flush=True)


def main() -> None:
    """Perform the orders on stdin until it ends."""
    for line in sys.stdin:
        order = json.loads(line)
        if order.get("aside"):
            step_aside()
        tell(asyncio.run({"submit": submit, "watch": watch}[order["do"]](order)))


if __name__ == "__main__":
    main()
