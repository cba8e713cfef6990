"""Decides which worker hangs, from what all workers report, because a single worker cannot know.

[Note: who hangs] A worker that computes does not hang, however long it takes, and neither does one that waits for it.
There are two kinds of hang:

1. A process does not answer at all (it is stopped, or its host or network is gone).
2. No worker makes progress: a worker reports that it computes, but its thread gets no CPU time (it is blocked in the
   middle of an action); or an array was lost; or workers wait in a circle. While any worker makes progress, none is
   blamed: a thread may get no CPU because other threads use it, and workers that need a blocked one soon wait too.

Each counts only after `resources.hang_timeout` without a change. An action that computes for ever is not a hang.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stages.orders import when
from stages.progress import Doing, Seen

_MOST_TOLD = 8


@dataclass(frozen=True, slots=True)
class Hang:
    """The worker that hangs, and why, with what the other workers do."""

    worker: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is known of one worker: `seen` is its last answer, None if it never answered; `still_for` the seconds
    without progress; `silent_for` the seconds without an answer."""

    seen: Seen | None
    still_for: float = 0.0
    silent_for: float = 0.0


class Liveness:
    """Remembers the workers' answers while the coordinator waits for one submission."""

    def __init__(self, n_workers: int, limit_s: float) -> None:
        self._limit = limit_s
        self._seen: list[Seen | None] = [None] * n_workers
        self._still_since: list[float | None] = [None] * n_workers
        self._silent_since: list[float | None] = [None] * n_workers

    def take(self, asked: float, answers: Mapping[int, Seen]) -> Hang | None:
        """Take in the workers' answers to a question that was sent at `asked` (seconds); a worker without an entry did
        not answer. Return the worker that hangs, or None."""
        for worker, before in enumerate(self._seen):
            after = answers.get(worker)
            if after is None:
                if self._silent_since[worker] is None:
                    self._silent_since[worker] = asked
                continue
            self._silent_since[worker] = None
            if before is None or moved(before, after):
                self._still_since[worker] = asked
            self._seen[worker] = after
        return judge(
            [
                State(seen=seen, still_for=_since(still, asked), silent_for=_since(silent, asked))
                for seen, still, silent in zip(self._seen, self._still_since, self._silent_since, strict=True)
            ],
            self._limit,
        )

    def without_progress_for(self, worker: int, now: float) -> float | None:
        """Return the seconds since the worker stopped to answer, or to make progress; None if it does both."""
        since = self._silent_since[worker]
        if since is None:
            since = self._still_since[worker]
        return None if since is None else now - since

    def last_seen(self, worker: int) -> str | None:
        """Return what the worker did when it last answered; None if it never did."""
        seen = self._seen[worker]
        return None if seen is None else activity_text(seen)


def _since(begun: float | None, now: float) -> float:
    return 0.0 if begun is None else now - begun


def moved(before: Seen, after: Seen) -> bool:
    """Whether the worker made progress between two answers. Preparing has a limit of its own."""
    if after.doing is Doing.PREPARING or after.changes != before.changes:
        return True
    return after.doing is Doing.COMPUTING and after.cpu_s > before.cpu_s


def judge(states: Sequence[State], limit_s: float) -> Hang | None:
    """Return the worker that hangs, or None; see [Note: who hangs]."""
    within = f"within {limit_s:g} s"
    for worker, state in enumerate(states):
        if state.silent_for > limit_s:
            last = "it has never answered" if state.seen is None else f"last seen {activity_text(state.seen)}"
            return Hang(
                worker, f"no answer {within}; its process does not answer, {last}{_others(states, except_for=worker)}"
            )
    if any(state.seen is None or state.silent_for or state.still_for <= limit_s for state in states):
        return None
    seen = [state.seen for state in states if state.seen is not None]
    for worker, one in enumerate(seen):
        if one.doing is Doing.COMPUTING:
            why = f"no progress {within}; it is still {activity_text(one)}, and uses no CPU"
            return Hang(worker, why + _others(states, worker))
    waits = [worker for worker, one in enumerate(seen) if one.doing in (Doing.WAITING, Doing.SENDING)]
    if not waits:
        return None
    worker, why = _blocked(waits[0], seen)
    return Hang(worker, f"no progress of any worker {within}; {why}{_others(states, worker)}")


def _blocked(worker: int, seen: Sequence[Seen]) -> tuple[int, str]:
    """Follow the chain of waits from `worker` to the worker that waits in vain. Return that worker and the reason."""
    chain = [worker]
    while True:
        here = seen[worker]
        assert here.peer is not None, "it waits for a worker"
        assert here.tag is not None, "it waits for an array"
        peer = seen[here.peer]
        if here.doing is Doing.SENDING and peer.doing is not Doing.SENDING:
            return worker, f"it is {activity_text(here)}, which does not receive"
        if here.doing is Doing.WAITING and peer.has_sent(here.tag):
            return worker, f"it is {activity_text(here)}, which has sent them: they were lost on the way"
        if peer.doing not in (Doing.WAITING, Doing.SENDING):
            return worker, f"it is {activity_text(here)}, which is {activity_text(peer)}"
        if here.peer in chain:
            circle = [*chain[chain.index(here.peer) :], here.peer]
            return here.peer, f"workers wait in a circle: {' for '.join(map(str, circle))}"
        worker = here.peer
        chain.append(worker)


def activity_text(seen: Seen) -> str:
    """Return what a worker does, in the words of an error."""
    if seen.doing is Doing.PREPARING:
        return "preparing"
    if seen.doing is Doing.IDLE:
        return "without orders"
    text = "between actions" if seen.action is None else f"in {seen.action}"
    if seen.action is not None:
        text += when(seen.step, evaluating=seen.evaluating)
    if seen.doing is Doing.WAITING:
        text += f", waiting for the {seen.tag} from worker {seen.peer}"
    if seen.doing is Doing.SENDING:
        text += f", sending the {seen.tag} to worker {seen.peer}"
    return text


def _others(states: Sequence[State], except_for: int) -> str:
    """Return what the other workers do; those that wait come first."""
    known = [(w, s.seen) for w, s in enumerate(states) if s.seen is not None and w != except_for and not s.silent_for]
    known.sort(key=lambda item: (item[1].doing is not Doing.WAITING, item[0]))
    texts = [f"worker {worker} is {activity_text(seen)}" for worker, seen in known[:_MOST_TOLD]]
    if len(known) > _MOST_TOLD:
        texts.append(f"{len(known) - _MOST_TOLD} more")
    return "".join(f"; {text}" for text in texts)
