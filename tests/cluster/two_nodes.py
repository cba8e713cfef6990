"""`python -m tests.cluster.two_nodes [HIDDEN]`: two Ray nodes of one CPU each on this host, until standard input ends.

The second node sees an empty folder at HIDDEN, as a host of its own would: it has a mount namespace of its own, which
needs root.
"""

from __future__ import annotations

import ctypes
import os
import sys

from ray.cluster_utils import Cluster

_NEW_MOUNTS, _PRIVATE = 0x20000, 0x44000  # CLONE_NEWNS; MS_REC | MS_PRIVATE


def hide(folder: str) -> None:
    """Cover the folder by an empty one, for this thread and the processes that it starts. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    for failed in (
        libc.unshare(_NEW_MOUNTS),
        libc.mount(b"none", b"/", None, _PRIVATE, None),
        libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, None),
    ):
        if failed:
            raise OSError(ctypes.get_errno(), f"{folder} cannot be hidden")


def main() -> None:
    """Print the address, then wait."""
    options = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
    try:
        for folder in sys.argv[1:]:
            hide(folder)
        cluster.add_node(**options)
        cluster.wait_for_nodes()
        print(cluster.address, flush=True)
        sys.stdin.read()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
