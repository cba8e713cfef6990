"""How long the work of a job takes on a machine: what a model of a step's time is made of. Plain data.

times = estimated_times(spec, cores=2)
times.part(2, 4, seams).forward(64)        # seconds of F of operations 2 and 3 for a micro-batch of 64 rows

[Note: parts and seams] A *part* is a run of neighbouring operations that one stage may hold. If a stage is put together
from several measured parts, each of them was measured with the work around an action (calls, the copy of the message,
the check for NaN), which a stage does once: this is the seam, and it is taken off between every two parts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Literal, NamedTuple

from coordinator.program.shared_cores import TURN_S

Source = Literal["measured", "estimated"]


@dataclass(frozen=True, slots=True)
class Curve:
    """Seconds by an amount (rows, bytes, numbers), known at some amounts, ascending. Straight lines connect them and go
    on beyond them. One point alone is in proportion to the amount; none is 0."""

    points: tuple[tuple[float, float], ...] = ()

    def __call__(self, amount: float) -> float:
        """Return the seconds of this amount, at least 0."""
        points = self.points
        if not points:
            return 0.0
        if len(points) == 1:
            known, seconds = points[0]
            return seconds * amount / known if known else seconds
        right = min(max(1, bisect_left([known for known, _ in points], amount)), len(points) - 1)
        (x, a), (y, b) = points[right - 1], points[right]
        return max(0.0, a + (b - a) * (amount - x) / (y - x))

    @staticmethod
    def line(fixed: float, each: float) -> Curve:
        """Return `fixed` seconds, and `each` for each of an amount."""
        return Curve(((0.0, fixed), (1.0, fixed + each)))


class PartTimes(NamedTuple):
    """Seconds of a part by the rows of a micro-batch: F, I and W. `joined` is W of several micro-batches at once, by
    all their rows."""

    forward: Curve
    input_gradient: Curve
    weight_gradient: Curve
    joined: Curve


class Seam(NamedTuple):
    """What is taken off between two parts, see [Note: parts and seams]: seconds of F, I and W, and of F and I for each
    number that would be carried across."""

    forward: float = 0.0
    input_gradient: float = 0.0
    weight_gradient: float = 0.0
    forward_each: float = 0.0
    input_each: float = 0.0


NO_SEAM = Seam()


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkTimes:
    """An array on its way between two workers, by its bytes. `send` keeps the sender busy and `receive` the receiver;
    between the two it is on its way for `latency_s`, and for its bytes at `bytes_per_s` (None: they take no further
    time). A receiver that has waited for longer than `spin_s` sleeps, and takes `wake_s` to wake up. `measured` says
    whether the figures were measured on the job's link."""

    latency_s: float
    bytes_per_s: float | None = None
    send: Curve = Curve()
    receive: Curve = Curve()
    spin_s: float = inf
    wake_s: float = 0.0
    measured: bool = False

    def on_its_way(self, n_bytes: float) -> float:
        """Return the seconds between the end of sending and the moment at which the receiver can take the array."""
        return self.latency_s + (n_bytes / self.bytes_per_s if self.bytes_per_s else 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineTimes:
    """Seconds of everything that a step consists of, for one network on one kind of host.

    `parts[first, stop]` are the times of operations `first` … `stop` − 1: at least one entry for each operation alone.
    `update` is by the trained numbers of a worker; `step_s` is a worker's other time in each step. `local` is the link
    between two workers of one host, `between` that of two hosts; `handed` is by the bytes of an array that a worker
    copies from one of its stages to the next.

    `cores` are those of a host that workers may use, and each worker computes with `threads` of them; `host_of[w]` is
    the host of worker w, empty if all are on one. `turn_s` is how long a worker keeps a core while others wait for it.
    `coordinator_s` is the coordinator's own work for a step, which takes time from the workers if it has no core of its
    own. `round_trip_s` passes at the end of a step whose update waits for all stages (clipping).
    """

    source: Source
    parts: Mapping[tuple[int, int], PartTimes]
    seam: Seam = NO_SEAM
    update: Curve = Curve()
    step_s: float = 0.0
    local: LinkTimes
    between: LinkTimes | None = None
    handed: Curve = Curve()
    cores: int
    threads: int = 1
    host_of: tuple[int, ...] = ()
    turn_s: float = TURN_S
    round_trip_s: float = 1e-3
    coordinator_s: float = 0.0
    bounded_links: bool = True
    """Whether a sender waits if a link between workers of one host has no room."""
    rows: tuple[int, ...] = field(default=())
    """Rows of a micro-batch for which parts were measured; for others the times are read off straight lines."""

    def host(self, worker: int) -> int:
        """Return the host of a worker."""
        return self.host_of[worker] if self.host_of else 0

    def part(self, first: int, stop: int, crossing: Sequence[int]) -> PartTimes:
        """Return the times of operations `first` … `stop` − 1, put together from single ones if they were not measured
        as one part. `crossing[k]` is how many numbers of a row are carried between operations k − 1 and k."""
        whole = self.parts.get((first, stop))
        if whole is not None:
            return whole
        single = [self.parts[k, k + 1] for k in range(first, stop)]
        carried, inner, seam = sum(crossing[k] for k in range(first + 1, stop)), stop - first - 1, self.seam
        return PartTimes(
            _sum([one.forward for one in single], inner * seam.forward, carried * seam.forward_each),
            _sum([one.input_gradient for one in single], inner * seam.input_gradient, carried * seam.input_each),
            _sum([one.weight_gradient for one in single], inner * seam.weight_gradient, 0.0),
            _sum([one.joined for one in single], inner * seam.weight_gradient, 0.0),
        )


def _sum(curves: Sequence[Curve], fixed: float, each: float) -> Curve:
    """Return the sum of curves less `fixed` seconds and `each` second for each of the amount."""
    at = sorted({known for curve in curves for known, _ in curve.points}) or [1.0]
    at = at if len(at) > 1 else [at[0] / 2, at[0]]
    return Curve(tuple((x, max(0.0, sum(curve(x) for curve in curves) - fixed - each * x)) for x in at))
