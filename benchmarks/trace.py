"""`python -m benchmarks.trace`: how long it takes to write a trace, and how much memory it needs besides the
timeline."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import tracemalloc
from pathlib import Path

from coordinator.program.replay import replay
from coordinator.schedules import build
from coordinator.trace.chrome_trace import TimedAction, Track, lay_over, write_chrome_trace
from coordinator.trace.trace_memory import TraceMemory
from stages.actions import Kind

_LIMIT_S = 2.0
_DURATIONS = {Kind.FORWARD: 1e-3, Kind.BACKWARD_INPUT: 1e-3, Kind.BACKWARD_WEIGHT: 1e-3, Kind.BACKWARD: 2e-3}


def timeline(steps: int, workers: int, micro_batches: int) -> list[TimedAction]:
    """Return steps of F, I and W that overlap between workers as in a job, on the clocks of two hosts."""
    program = build("zb-h1", n_stages=workers, n_micro_batches=micro_batches)
    lanes = replay(program, _DURATIONS).spans
    period = max(lane[-1].end - lane[0].start for lane in lanes)
    return [
        TimedAction(w, action, step * period + start + w % 2 * 1e-7, step * period + end + w % 2 * 1e-7, step)
        for step in range(1, steps + 1)
        for w, lane in enumerate(lanes)
        for action, start, end in lane
    ]


def main() -> None:
    """Write to disk several times, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--micro-batches", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    actions = timeline(options.steps, options.workers, options.micro_batches)
    one_step = [item for item in actions if item.step == 1]
    counted = [1024] * options.workers
    rows = (4,) * options.micro_batches
    memory = TraceMemory(for_input=counted, for_weight=counted, rows=lambda step: rows)
    measured = Track(timeline=actions, label="measured", hosts={w: f"host-{w % 2}" for w in range(options.workers)})
    size = f"{options.steps} steps × {options.workers} workers × {options.micro_batches} micro-batches"
    print(f"{size}: {len(actions):,} actions")
    for what, predicted in (("measured alone", False), ("measured and predicted", True)):
        seconds = []
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            for number in range(options.rounds + 1):
                if number == options.rounds:
                    tracemalloc.start()
                begun = time.perf_counter()
                tracks = [Track(timeline=lay_over(one_step, actions), label="predicted")] if predicted else []
                with path.open("wb") as file:
                    write_chrome_trace(file, measured, *tracks, name="benchmark", memory=memory)
                if number < options.rounds:
                    seconds.append(time.perf_counter() - begun)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            n_bytes = path.stat().st_size
        median = statistics.median(seconds)
        verdict = f", limit {_LIMIT_S:g} s: {'met' if median <= _LIMIT_S else 'MISSED'}"
        print(
            f"{what}: median {median:.2f} s ({min(seconds):.2f} to {max(seconds):.2f}){verdict}; "
            f"{n_bytes / 2**20:.0f} MiB written, {peak / 2**20:.0f} MiB of memory besides the timeline"
        )


if __name__ == "__main__":
    main()
