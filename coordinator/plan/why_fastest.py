"""Says in a sentence why a contest's winner won: which part of the predicted step is shorter than the next one's."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.plan.candidates import Candidate
from coordinator.plan.contest import Trial
from coordinator.texts import share

_EQUAL = 0.005
"""Shares of a step below this are called equal."""
_PARTS = {
    "products": ("forward", "input_gradient", "weight_gradient"),
    "schedule": ("schedule",),
    "links": ("send", "links"),
    "cores": ("cores",),
    "rest": ("update", "other"),
}
"""The causes of a step's time (see coordinator.timing.step_time, [Note: causes]), by what can be said about them."""


def why_fastest(best: Trial, trials: Sequence[Trial]) -> str:
    """Return the sentence: `2 workers, gpipe, 4 micro-batches: fewer, larger products; 12.0% shorter than the next`."""
    others = [trial for trial in trials if trial is not best and trial.seconds is not None]
    if not others or best.seconds is None:
        return f"{best.candidate.settings}: nothing else was measured"
    final = [trial for trial in others if not trial.dropped] or others
    following = min(final, key=lambda trial: trial.seconds or float("inf"))
    parts = [_compared(best.seconds, following.seconds, f"the next ({following.candidate.settings})")]
    own = next((trial for trial in others if trial.is_own and trial is not following), None)
    if own is not None:
        parts.append(_compared(best.seconds, own.seconds, "the job's own settings"))
    elif following.is_own:
        parts = [_compared(best.seconds, following.seconds, "the job's own settings, the next")]
    reason = reason_against(best.candidate, following.candidate)
    if (following.seconds or 0.0) < best.seconds * (1 + _EQUAL):
        reason = "changes least of those that are as fast" if best.is_own or not following.is_own else reason
    return f"{best.candidate.settings}: {reason}; {', '.join(parts)}"


def reason_against(best: Candidate, other: Candidate) -> str:
    """Return what is predicted to make a step with `best` shorter than one with `other`."""
    ours, theirs = best.predicted.by_cause, other.predicted.by_cause
    saved = {name: sum(theirs[c] - ours[c] for c in causes) for name, causes in _PARTS.items()}
    if best.predicted.seconds > other.predicted.seconds:
        longer = share(best.predicted.seconds / other.predicted.seconds - 1)
        return f"measured so, although its step was predicted {longer} longer"
    part = max(saved, key=lambda name: saved[name])
    return _phrase(part, best, other)


def _phrase(part: str, best: Candidate, other: Candidate) -> str:
    a, b = best.settings, other.settings
    idle = f"{share(best.predicted.bubble.total)} idle instead of {share(other.predicted.bubble.total)}"
    if part == "products" and a.micro_batches < b.micro_batches:
        return "fewer, larger products"
    if part == "products" and a.weight_grad_group > b.weight_grad_group:
        return f"one product for the weight gradients of {a.weight_grad_group} micro-batches"
    if part == "products" and a.workers > b.workers:
        return "less to compute for each worker"
    if part == "products" and b.recompute != "none":
        return "nothing is computed twice"
    if part == "schedule":
        return f"its schedule waits less, {idle}"
    if part == "links" and a.workers == 1:
        return "nothing is sent between workers"
    if part == "links":
        return "arrays are sent less often" if a.micro_batches < b.micro_batches else f"less waiting for arrays, {idle}"
    if part == "cores":
        return "no worker waits for a core"
    return "less work between the actions" if part == "rest" else "shorter products"


def _compared(ours: float, theirs: float | None, what: str) -> str:
    assert theirs, "it was measured"
    gain = 1 - ours / theirs
    if abs(gain) < _EQUAL:
        return f"as fast as {what}"
    return f"{share(abs(gain))} {'shorter' if gain > 0 else 'longer'} than {what}"
