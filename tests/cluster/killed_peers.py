"""`python -m tests.cluster.killed_peers N`: kills N peers of a worker, and looks for what they leave.

Every peer is a process that sends and receives without end. It is killed, or stopped and then killed, after it has
received some arrays. The survivor's waits must end by their deadline, and nothing may be left: no file, no socket, no
descriptor, no mapped memory, no process.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cluster.actors.channel import WorkerChannel
from stages.actions import Kind
from stages.channel import Attendance, ReceiveTimeout, Tag

ROOM = {0: 2**18, 1: 2**18}
_ARRAY = np.ones((64, 200), np.float32)


def _channel(worker: int) -> WorkerChannel:
    return WorkerChannel(worker, node="n", host_ip="127.0.0.1", timeout_s=20.0)


def _exchange(channel: WorkerChannel, arrays: int) -> None:
    """Send and receive arrays, both up to four ahead."""
    own = channel.address.worker
    for j in range(arrays + 4):
        if j < arrays:
            channel.send(1 - own, Tag(0, own, Kind.FORWARD, j), _ARRAY)
        if j >= 4:
            assert channel.receive(Tag(0, 1 - own, Kind.FORWARD, j - 4)).shape == _ARRAY.shape


def _peer(read: int, write: int) -> None:
    channel = _channel(1)
    os.write(write, pickle.dumps(channel.address))
    addresses = pickle.loads(os.read(read, 65536))
    channel.admit(addresses)
    channel.connect(addresses, room=ROOM)
    channel.seal()
    _exchange(channel, 2**40)


def _one_run(number: int) -> int:
    """Return the process that was killed."""
    to_peer, to_us = os.pipe(), os.pipe()
    peer = os.fork()
    if peer == 0:
        try:
            _peer(to_peer[0], to_us[1])
        finally:
            os._exit(1)
    channel = _channel(0)
    addresses = [channel.address, pickle.loads(os.read(to_us[0], 65536))]
    channel.admit(addresses)
    os.write(to_peer[1], pickle.dumps(addresses))
    channel.connect(addresses, room=ROOM)
    channel.seal()
    _exchange(channel, number % 7 + 1)
    if number % 2:
        os.kill(peer, signal.SIGSTOP)
        _ends(lambda: channel.receive(Tag(1, 0, Kind.FORWARD, 0)), channel)
        _ends(lambda: _exchange(channel, 100), channel)
    os.kill(peer, signal.SIGKILL)
    os.waitpid(peer, 0)
    _ends(lambda: channel.receive(Tag(1, 0, Kind.FORWARD, 0)), channel)
    channel.close()
    for descriptor in (*to_peer, *to_us):
        os.close(descriptor)
    return peer


def _ends(wait: Callable[[], object], channel: WorkerChannel) -> None:
    channel.attendance = Attendance(0.02)
    try:
        wait()
    except ReceiveTimeout:
        return
    raise AssertionError("it waits for nobody, and must end")


def _left(*peers: int) -> dict[str, object]:
    """What a run could leave."""
    base, mine = Path(tempfile.gettempdir()), os.getpid()
    folders = [path for pid in (mine, *peers) for path in base.glob(f"pipetrain-{pid}-*")]
    return {
        "descriptors": sorted(os.listdir("/proc/self/fd")),
        "maps": "pipetrain-link" in Path("/proc/self/maps").read_text(),
        "folders": folders,
        "shared memory": sorted(name for name in os.listdir("/dev/shm") if "pipetrain" in name),
        "children": Path(f"/proc/self/task/{mine}/children").read_text(),
    }


def main(count: int) -> None:
    """Kill `count` peers."""
    _one_run(0)  # libraries open files of their own at first use
    before = _left()
    for number in range(count):
        after = _left(_one_run(number))
        assert after == before, f"run {number} left {after}, before it there was {before}"
    print(f"{count} peers ended, nothing left")


if __name__ == "__main__":
    main(int(sys.argv[1]))
