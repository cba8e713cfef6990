"""`python -m tests.cluster.two_nodes`: two Ray nodes of one CPU each on this host, until standard input ends."""

from __future__ import annotations

import sys

from ray.cluster_utils import Cluster


def main() -> None:
    """Print the address, then wait."""
    options = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
    try:
        cluster.add_node(**options)
        cluster.wait_for_nodes()
        print(cluster.address, flush=True)
        sys.stdin.read()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
