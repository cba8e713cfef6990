"""Writes measured and predicted programs in Chrome's trace format, which Perfetto opens.

A host is a process, a worker a thread, an action a slice; each array sent to another worker is an arrow, and a counter
shows what each worker keeps for the backward pass. Times are microseconds, exact to the nanosecond, since the first
action.

    with path.open("wb") as file:
        write_chrome_trace(file, measured, predicted, name="digits", memory=trace_memory(blueprint, train_rows))
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, BinaryIO, NamedTuple

from coordinator.trace.trace_file import EventFile
from coordinator.trace.trace_memory import KeptBytes, TraceMemory
from coordinator.train.workers import ClockFix
from stages.actions import Action, Kind


class TimedAction(NamedTuple):
    """An action that a worker performed in step `step` (from 1); seconds on one clock."""

    worker: int
    action: Action
    start: float
    end: float
    step: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """A group of processes, one a host, with measured or predicted actions, as `label` says.

    `hosts[w]` is the host of worker w; without hosts, all workers are on one. `clocks[w]` is the correction that the
    times of worker w already include; it is only written into the facts.
    """

    timeline: Sequence[TimedAction]
    label: str = ""
    hosts: Mapping[int, str] = field(default_factory=dict)
    clocks: Mapping[int, ClockFix] = field(default_factory=dict)


FACTS = "facts of the track"
"""The name of the event at the end of a complete track."""

_NAMES = {
    Kind.FORWARD: "forward",
    Kind.BACKWARD: "backward",
    Kind.BACKWARD_INPUT: "input gradient",
    Kind.BACKWARD_WEIGHT: "weight gradient",
}


def write_chrome_trace(file: BinaryIO, *tracks: Track, name: str, memory: TraceMemory | None = None) -> None:
    """Write a whole trace, in parts. Tracks share one clock, so that viewers show them above each other; see
    `lay_over`.

    If clocks of hosts are wrong, an array may seem to arrive before it was sent. Its arrow then starts within the slice
    that made it, or is left out if even that would point backwards; the track's facts count both.
    """
    zero = min((item.start for track in tracks for item in track.timeline), default=0.0)
    events = EventFile(file)
    pid = 1  # viewers take 0 for the idle process
    for track in tracks:
        pid = _write_track(events, track, name, zero, pid, memory)
    events.close()


class GrowingTrace:
    """A trace that is written during its steps: after each `add` the file has the step, whatever happens next.

    `hosts` is as in Track. Times count from the first action of the first step.
    """

    def __init__(self, file: BinaryIO, *, name: str, hosts: Mapping[int, str], memory: TraceMemory | None) -> None:
        self._events, self._name, self._hosts, self._memory = EventFile(file), name, hosts, memory
        self._measured: _Drawing | None = None
        self._zero = 0.0

    def add(self, step: Sequence[TimedAction], clocks: Mapping[int, ClockFix]) -> None:
        """Write what all workers did in one step. Raises OSError."""
        if self._measured is None:
            self._zero = min(item.start for item in step)
            track = Track(timeline=step, label="measured", hosts=self._hosts, clocks=clocks)
            self._measured = _Drawing(track, self._name, self._zero, 1, self._memory, self._events)
        self._measured.clocks = clocks
        self._measured.draw(step)
        self._events.flush()

    def close(self, predicted: Sequence[TimedAction]) -> None:
        """Write the prediction for the same steps (see `lay_over`) and the end of the file. Raises OSError."""
        pid = 1
        if self._measured is not None:
            self._measured.close()
            pid += len(self._measured.hosts)
        if predicted:
            track = Track(timeline=predicted, label="predicted", hosts=self._hosts)
            _write_track(self._events, track, self._name, self._zero, pid, self._memory)
        self._events.close()


def _write_track(events: EventFile, track: Track, name: str, zero: float, pid: int, memory: TraceMemory | None) -> int:
    """Write a whole track. Return the number of the next process."""
    drawn = _Drawing(track, name, zero, pid, memory, events)
    if track.timeline:
        drawn.draw(track.timeline)
        drawn.close()
    return pid + len(drawn.hosts)


def lay_over(predicted: Sequence[TimedAction], measured: Sequence[TimedAction]) -> list[TimedAction]:
    """Return copies of one predicted step, one for each measured step with the same actions, starting with its first
    one.

    A copy that would begin before the copy before it has ended on some worker is moved to that end.
    """
    found: list[TimedAction] = []
    shape = _shape(predicted)
    first, last = _bounds(predicted)
    free = dict.fromkeys(first, -float("inf"))
    by_step: dict[int, list[TimedAction]] = {}
    for item in measured:
        by_step.setdefault(item.step, []).append(item)
    for step in sorted(by_step):
        if not predicted or _shape(by_step[step]) != shape:
            continue
        begin = min(item.start for item in by_step[step]) - min(first.values())
        shift = max(begin, *(free[worker] - start for worker, start in first.items()))
        free = {worker: end + shift for worker, end in last.items()}
        found += [item._replace(start=item.start + shift, end=item.end + shift, step=step) for item in predicted]
    return found


def _shape(timeline: Sequence[TimedAction]) -> frozenset[tuple[int, int]]:
    return frozenset((item.action.stage, item.action.micro_batch) for item in timeline)


def _bounds(timeline: Sequence[TimedAction]) -> tuple[dict[int, float], dict[int, float]]:
    """Return each worker's first start and last end."""
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    for item in timeline:
        first[item.worker] = min(item.start, first.get(item.worker, item.start))
        last[item.worker] = max(item.end, last.get(item.worker, item.end))
    return first, last


class _Slice(NamedTuple):
    """An action as it is drawn: whole nanoseconds since the beginning of the trace."""

    item: TimedAction
    start: int
    end: int


_Key = tuple[int, int, bool, int]
"""An array that is sent: step, receiving stage, whether forward, micro-batch."""


class _Drawing:
    """One track, written to `events` in one part or several. Its processes are numbered from `pid`.

    `clocks` is as in Track, for the part that is drawn next.
    """

    def __init__(
        self, track: Track, name: str, zero: float, pid: int, memory: TraceMemory | None, events: EventFile
    ) -> None:
        self._track, self._zero, self._memory, self._events = track, zero, memory, events
        self.clocks = track.clocks
        self._workers = sorted({item.worker for item in track.timeline})
        self.hosts = list(dict.fromkeys(track.hosts.get(worker, "") for worker in self._workers))
        self._pid = {worker: pid + self.hosts.index(track.hosts.get(worker, "")) for worker in self._workers}
        self._where = {worker: f'"pid":{self._pid[worker]},"tid":{worker + 1}' for worker in self._workers}
        self._unit = json.dumps(memory.unit) if memory is not None else ""
        self._kept_bytes = {} if memory is None else {worker: KeptBytes(memory) for worker in self._workers}
        self._ended = dict.fromkeys(self._workers, -1)  # of each worker's last slice; -1 for none
        self._moved = self._arrows = self._early = self._beyond = self._left_out = self._largest = 0
        self._name_processes(" ".join(filter(None, (name, track.label))))

    def draw(self, timeline: Sequence[TimedAction]) -> None:
        """Write whole steps. They must come after the steps that were drawn before."""
        made: dict[_Key, _Slice] = {}
        taken: list[tuple[_Key, _Slice]] = []
        lanes: dict[int, list[TimedAction]] = {worker: [] for worker in self._workers}
        for item in timeline:
            lanes[item.worker].append(item)
        for worker, lane in lanes.items():
            lane.sort(key=attrgetter("start", "end"))
            self._draw_lane(worker, lane, made, taken)
        for key, target in taken:
            source = made.get(key)
            if source is not None and source.item.worker != target.item.worker:
                self._arrow(source, target)

    def close(self) -> None:
        """Write facts for readers of the times: how far clocks may be wrong, and the arrows and slices that this
        changed."""
        facts = {
            "track": self._track.label,
            "clocks": {
                str(worker): {"offset_seconds": clock.offset, "error_seconds": clock.error}
                for worker, clock in sorted(self.clocks.items())
            },
            "arrays": self._arrows + self._left_out,
            "arrived_before_sent": self._early,
            "arrived_before_sent_beyond_clock_error": self._beyond,
            "largest_seconds_before_sent": self._largest / 1e9,
            "arrows_left_out": self._left_out,
            "slices_shortened_by_a_clock_change": self._moved,
        }
        where = {"pid": self._pid[self._workers[0]], "tid": 0, "ts": max(self._ended.values()) / 1e3}
        self._events.add({"ph": "i", "s": "p", **where, "name": FACTS, "cat": "track", "args": facts})

    def _name_processes(self, title: str) -> None:
        for host in self.hosts:
            workers = [worker for worker in self._workers if self._track.hosts.get(worker, "") == host]
            pid = self._pid[workers[0]]
            self._metadata("process_name", pid, 0, name=f"{title} on {host}" if host else title)
            self._metadata("process_sort_index", pid, 0, sort_index=pid)
            clocks = [self._track.clocks[worker] for worker in workers if worker in self._track.clocks]
            if clocks:
                self._metadata("process_labels", pid, 0, labels=_clock_text(max(clocks, key=lambda fix: fix.error)))
            for worker in workers:
                self._metadata("thread_name", pid, worker + 1, name=f"worker {worker}")
                self._metadata("thread_sort_index", pid, worker + 1, sort_index=worker)

    def _metadata(self, what: str, pid: int, tid: int, **arguments: Any) -> None:
        self._events.add({"ph": "M", "pid": pid, "tid": tid, "name": what, "args": arguments})

    def _draw_lane(
        self, worker: int, lane: Sequence[TimedAction], made: dict[_Key, _Slice], taken: list[tuple[_Key, _Slice]]
    ) -> None:
        keeper, before = self._kept_bytes.get(worker), self._ended[worker]
        if keeper is not None and lane and before < 0:
            self._count(worker, round((lane[0].start - self._zero) * 1e9), 0)
        before = max(before, 0)
        for item in lane:
            start, end = round((item.start - self._zero) * 1e9), round((item.end - self._zero) * 1e9)
            if start < before:  # the clock's correction changed between two steps; slices of a thread must not overlap
                self._moved += 1
                start, end = before, max(before, end)
            before = end
            drawn = _Slice(item, start, end)
            self._slice(drawn)
            action = item.action
            if action.kind is not Kind.BACKWARD_WEIGHT:
                forward = action.kind is Kind.FORWARD
                taken.append(((item.step, action.stage, forward, action.micro_batch), drawn))
                made[item.step, action.stage + (1 if forward else -1), forward, action.micro_batch] = drawn
            if keeper is not None and (kept := keeper.after(item.step, action)) is not None:
                self._count(worker, end, kept)
        self._ended[worker] = before

    def _slice(self, drawn: _Slice) -> None:
        step, action = drawn.item.step, drawn.item.action
        kind = _NAMES[action.kind]
        self._events.add_json(
            f'{{"ph":"X",{self._where[drawn.item.worker]},"name":"{action}","cat":"{kind}",'
            f'"ts":{drawn.start / 1e3},"dur":{(drawn.end - drawn.start) / 1e3},"args":{{"step":{step},'
            f'"stage":{action.stage},"micro_batch":{action.micro_batch},"kind":"{kind}"}}}}'
        )

    def _count(self, worker: int, at: int, kept: int) -> None:
        self._events.add_json(
            f'{{"ph":"C",{self._where[worker]},"name":"worker {worker} keeps","ts":{at / 1e3},'
            f'"args":{{{self._unit}:{kept}}}}}'
        )

    def _arrow(self, source: _Slice, target: _Slice) -> None:
        leaves = max(source.start, source.end - 1)  # at its very end, viewers would attach it to the next slice
        if target.start < source.end:
            early = source.end - target.start
            self._early += 1
            self._largest = max(self._largest, early)
            self._beyond += early > 1e9 * sum(
                self.clocks.get(worker, ClockFix()).error for worker in (source.item.worker, target.item.worker)
            )
            if target.start < source.start:
                self._left_out += 1
                return
            leaves = target.start
        self._arrows += 1
        same = f'"name":"array","cat":"array","id":{self._events.next_id()}'
        left, came = self._where[source.item.worker], self._where[target.item.worker]
        self._events.add_json(f'{{"ph":"s",{left},"ts":{leaves / 1e3},{same}}}')
        self._events.add_json(f'{{"ph":"f","bp":"e",{came},"ts":{target.start / 1e3},{same}}}')


def _clock_text(fix: ClockFix) -> str:
    if fix == ClockFix():
        return "clock: the coordinator's"
    return f"clock: {1e3 * fix.offset:+.3f} ms ± {1e3 * fix.error:.3f} ms"
