"""A predicted step as text: where each worker's time goes, and how it differs from the steps of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cluster.cli.figure_tables import aligned
from coordinator.texts import counted, number, per_second, share
from coordinator.timing.machine_times import MachineTimes
from coordinator.timing.step_comparison import COMPARED, MeasuredSteps, StepComparison
from coordinator.timing.step_time import CAUSES, PredictedStep

NAMES = {
    "forward": "forward (F)",
    "input_gradient": "input gradient (I)",
    "weight_gradient": "weight gradient (W)",
    "update": "update",
    "send": "sending",
    "other": "other",
    "wait": "waiting",
    "schedule": "waiting: schedule",
    "links": "waiting: arrays on their way",
    "cores": "waiting: shared cores",
}
_MOST_WORKERS = 4
_WIDEST = 32


def prediction_lines(step: PredictedStep, times: MachineTimes, samples: int) -> Iterator[str]:
    """Yield the lines about a step of `samples` rows that was predicted from measured times."""
    n = len(step.by_worker)
    yield (
        f"predicted from times measured here: a step takes {_ms(step.seconds)} ms, "
        f"{per_second(samples / step.seconds)} samples/s, bubble {share(step.bubble.total)}"
    )
    hosts = len(set(times.host_of))
    if hosts > 1:
        yield f"links between hosts were not measured: those of the {hosts} hosts count as links of one host"
    elif n * times.threads > times.cores:
        yield (
            f"{counted(n, 'worker')} share {counted(times.cores, 'core')} here; on several hosts they would not, "
            "but links between hosts were not measured"
        )
    yield ""
    shown = range(min(n, _MOST_WORKERS))
    rows = [
        (
            NAMES[cause],
            *(_ms(step.by_worker[w][cause]) for w in shown),
            share(step.by_cause[cause] / step.seconds),
        )
        for cause in CAUSES
    ]
    yield from aligned(("ms of a step", *(f"worker {w}" for w in shown), "mean"), rows, widest=_WIDEST)
    if n > _MOST_WORKERS:
        yield f"{counted(n - _MOST_WORKERS, 'more worker')}: --json has all"


def comparison_lines(found: StepComparison, median: float | None, measured: MeasuredSteps) -> Iterator[str]:
    """Yield the lines about a predicted step beside the measured ones; `median` is their median in seconds."""
    n = len(found.measured)
    middle = "" if median is None else f" (median {_ms(median)} ms)"
    yield (
        f"predicted {_ms(found.predicted_seconds)} ms a step, measured {_ms(found.measured_seconds)} ms{middle} "
        f"over {counted(measured.steps, 'step')}: the prediction is {_off(found.error)}"
    )
    if measured.others:
        yield (
            f"{share(measured.others / measured.steps)} of the measured steps have another number of rows than the "
            "predicted one, and count in their mean"
        )
    cause = found.main_cause
    yield f"most of the difference: {NAMES[cause]}, {_signed(found.by_cause[cause])} ms"
    yield ""
    shown = range(min(n, _MOST_WORKERS))
    rows = [
        (
            NAMES[cause],
            *(f"{_ms(found.predicted[w][cause])} → {_ms(found.measured[w][cause])}" for w in shown),
            _signed(found.by_cause[cause]),
        )
        for cause in COMPARED
    ]
    yield from aligned(("ms, predicted → measured", *(f"worker {w}" for w in shown), "mean"), rows, widest=_WIDEST)
    if n > _MOST_WORKERS:
        yield f"{counted(n - _MOST_WORKERS, 'more worker')}: --json has all"


def prediction_document(step: PredictedStep, times: MachineTimes, samples: int) -> dict[str, Any]:
    """Return a predicted step as plain values; times are in seconds."""
    link = times.local
    return {
        "source": times.source,
        "seconds": step.seconds,
        "samples_per_second": samples / step.seconds,
        "bubble": step.bubble.total,
        "by_cause": dict(step.by_cause),
        "by_worker": [dict(row) for row in step.by_worker],
        "cores": times.cores,
        "link": {"latency": link.latency_s, "bytes_per_second": link.bytes_per_s, "measured": link.measured},
    }


def comparison_document(found: StepComparison, median: float | None, measured: MeasuredSteps) -> dict[str, Any]:
    """Return a comparison as plain values; times are in seconds."""
    return {
        "steps": measured.steps,
        "of_other_size": measured.others,
        "predicted": found.predicted_seconds,
        "measured": found.measured_seconds,
        "median": median,
        "error": found.error,
        "by_cause": dict(found.by_cause),
        "workers": [
            {"predicted": dict(p), "measured": dict(m)} for p, m in zip(found.predicted, found.measured, strict=True)
        ],
    }


def _ms(seconds: float) -> str:
    return number(round(1e3 * seconds, 3))


def _signed(seconds: float) -> str:
    return f"{'+' if seconds >= 0 else '−'}{_ms(abs(seconds))}"


def _off(error: float) -> str:
    return f"{share(abs(error))} too {'long' if error >= 0 else 'short'}"
