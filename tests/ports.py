"""Ports for servers that start later, and perhaps again."""

from __future__ import annotations

import random
import socket

_CHOICES = range(20_000, 32_000)
"""Ray gives lower ports to its workers. Linux gives higher ones to any connection, so a free one is soon taken."""
_RANDOM = random.SystemRandom()  # not Hypothesis' seeded generator: two runs at once would choose the same ports


def free_ports(n: int) -> list[int]:
    """Return `n` ports of loopback on which no process listens now."""
    found: dict[int, socket.socket] = {}
    try:
        while len(found) < n:
            port, probe = _RANDOM.choice(_CHOICES), socket.socket()
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                probe.close()
            else:
                found[port] = probe
        return list(found)
    finally:
        for probe in found.values():
            probe.close()
