"""Ports for servers that are started later, and perhaps again."""

from __future__ import annotations

import random
import socket

_CHOICES = range(20_000, 32_000)
"""Ray gives its workers lower ones; higher ones Linux gives to any connection, so one that was free is soon taken."""
_RANDOM = random.SystemRandom()  # not the generator that Hypothesis seeds: two runs at once would choose the same


def free_ports(n: int) -> list[int]:
    """So many ports of loopback that nobody listens on now."""
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
