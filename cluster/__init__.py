"""The outside world: Ray, ZeroMQ, gRPC, files and the command line.

`from pipetrain import Client` is the way in. The names here are for scripts from before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster.client import Client as Client
    from cluster.client import EvalRow as EvalRow
    from cluster.client import Job as Job
    from cluster.client import StepRow as StepRow

__all__ = ["Client", "EvalRow", "Job", "StepRow"]


def __getattr__(name: str) -> Any:
    """Load the client when it is asked for: the command line must not wait for gRPC to say `--help`."""
    if name in __all__:
        import cluster.client

        return getattr(cluster.client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
