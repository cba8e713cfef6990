"""Decides which worker hangs, from what all workers report, because a single worker cannot know.

[Note: who hangs] A worker that computes does not hang, however long it takes, and neither does one that waits for it.
There are three kinds of hang:

1. A process does not answer at all (it is stopped, or its host or network is gone).
2. A worker reports that it computes, but its thread gets no CPU time: it is blocked in the middle of an action.
3. No worker makes progress: an array or a link was lost, or workers wait in a circle.

Each counts after `resources.hang_timeout` without a change, the second only if no other worker makes progress: its
thread may get no CPU because other threads use it. If there is proof, each counts after a much shorter time, see
[Note: two limits]: (1) the system says that the process is stopped, or its host cannot be reached; (2) the system says
that the thread sleeps, which it does not while it waits for a CPU, a disk or memory; (3) every thread sleeps, none
waits for orders, and no bytes arrive anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from stages.orders import when
from stages.progress import Doing, LinkSeen, Seen

_MOST_TOLD = 8
_GAP = 2.0
"""A question may come so many times as late as usual."""
_WAKES = 1
"""A thread that waits wakes up now and then to look around: it sleeps unless it is awake in two successive answers."""


class Sight(StrEnum):
    """What is known of the process of a worker that does not answer."""

    UNKNOWN = "unknown"
    STOPPED = "its process is stopped"
    UNREACHABLE = "its host cannot be reached"


@dataclass(frozen=True, slots=True)
class Hang:
    """The worker that hangs, and why, with what the other workers do. If the reason is that the link between two hosts
    is lost, `link` has the two workers, the sender first; then neither of them hangs."""

    worker: int
    why: str
    link: tuple[int, int] | None = None
    sight: Sight = Sight.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is known of one worker: `seen` is its last answer, None if it never answered; `still_for` the seconds
    without progress, `asleep_for` those of them in which its thread slept; `silent_for` the seconds without an
    answer, and `sight` what is known then."""

    seen: Seen | None
    still_for: float = 0.0
    asleep_for: float = 0.0
    silent_for: float = 0.0
    sight: Sight = Sight.UNKNOWN


class Liveness:
    """Remembers the workers' answers while the coordinator waits for one submission. `limit_s` is the limit, `sure_s`
    that with proof (None: the same), `every_s` the time between two questions.

    Its clock stops while the coordinator itself is held up: then nobody asked, and no silence counts.
    """

    def __init__(self, n_workers: int, limit_s: float, sure_s: float | None = None, every_s: float = 1.0) -> None:
        self._limit, self._sure = limit_s, limit_s if sure_s is None else sure_s
        self._most = _GAP * every_s
        self._asked: float | None = None
        self._now = 0.0
        self._seen: list[Seen | None] = [None] * n_workers
        self._still_since: list[float | None] = [None] * n_workers
        self._asleep_since: list[float | None] = [None] * n_workers
        self._awake = [0] * n_workers
        self._silent_since: list[float | None] = [None] * n_workers

    def take(self, asked: float, answers: Mapping[int, Seen], sights: Mapping[int, Sight] | None = None) -> Hang | None:
        """Take in the workers' answers to a question that was sent at `asked` (seconds); a worker without an entry did
        not answer, and may have one in `sights`. Return the worker that hangs, or None."""
        self._now += 0.0 if self._asked is None else min(asked - self._asked, self._most)
        self._asked, now = asked, self._now
        for worker, before in enumerate(self._seen):
            after = answers.get(worker)
            if after is None:
                if self._silent_since[worker] is None:
                    self._silent_since[worker] = now
                continue
            self._silent_since[worker] = None
            if before is None or moved(before, after):
                self._still_since[worker] = now
                self._asleep_since[worker] = None
            self._awake[worker] = 0 if after.asleep else self._awake[worker] + 1
            if self._awake[worker] > _WAKES:
                self._asleep_since[worker] = None
            elif self._asleep_since[worker] is None:
                self._asleep_since[worker] = now
            self._seen[worker] = after
        return judge(
            [
                State(
                    seen=seen,
                    still_for=_since(self._still_since[worker], now),
                    asleep_for=_since(self._asleep_since[worker], now),
                    silent_for=_since(self._silent_since[worker], now),
                    sight=(sights or {}).get(worker, Sight.UNKNOWN),
                )
                for worker, seen in enumerate(self._seen)
            ],
            self._limit,
            self._sure,
        )

    def without_progress_for(self, worker: int) -> float | None:
        """Return the seconds since the worker stopped to answer, or to make progress; None if it does both."""
        since = self._silent_since[worker]
        if since is None:
            since = self._still_since[worker]
        return None if since is None else self._now - since

    def seen(self, worker: int) -> Seen | None:
        """Return the worker's last answer; None if it never answered."""
        return self._seen[worker]

    def last_seen(self, worker: int) -> str | None:
        """Return what the worker did when it last answered; None if it never did."""
        seen = self._seen[worker]
        return None if seen is None else activity_text(seen)


def _since(begun: float | None, now: float) -> float:
    return 0.0 if begun is None else now - begun


def moved(before: Seen, after: Seen) -> bool:
    """Whether the worker made progress between two answers, or something that it sent has arrived. Preparing has a
    limit of its own."""
    if after.doing is Doing.PREPARING or after.changes != before.changes:
        return True
    if [link.acknowledged for link in after.links] != [link.acknowledged for link in before.links]:
        return True
    return after.doing in (Doing.COMPUTING, Doing.STORING) and after.cpu_s > before.cpu_s


def judge(states: Sequence[State], limit_s: float, sure_s: float | None = None) -> Hang | None:
    """Return the worker that hangs, or None; see [Note: who hangs]. `sure_s`: the limit with proof."""
    sure_s = limit_s if sure_s is None else min(sure_s, limit_s)
    return _silent(states, limit_s, sure_s) or _blocked(states, sure_s) or _still(states, limit_s, sure_s)


def _silent(states: Sequence[State], limit_s: float, sure_s: float) -> Hang | None:
    for worker, state in enumerate(states):
        within = limit_s if state.sight is Sight.UNKNOWN else sure_s
        if state.silent_for > within:
            last = "" if state.seen is None else f", last seen {activity_text(state.seen)}"
            why = "its process does not answer" if state.sight is Sight.UNKNOWN else state.sight.value
            text = f"no answer {_within(within)}; {why}{last}{_others(states, except_for=worker)}"
            return Hang(worker, text, sight=state.sight)
    return None


def _blocked(states: Sequence[State], sure_s: float) -> Hang | None:
    """Return a worker whose thread sleeps in the middle of an action, whatever the others do."""
    for worker, state in enumerate(states):
        seen = state.seen
        if seen is None or seen.doing is not Doing.COMPUTING or state.silent_for:
            continue
        if _quiet(state) > sure_s:
            return Hang(worker, _no_cpu(seen, sure_s) + _others(states, worker))
    return None


def _no_cpu(seen: Seen, within_s: float) -> str:
    return f"no progress {_within(within_s)}; it is still {activity_text(seen)}, and uses no CPU"


def _still(states: Sequence[State], limit_s: float, sure_s: float) -> Hang | None:
    """Return why no worker makes progress."""
    if any(state.seen is None or state.silent_for for state in states):
        return None
    seen = [state.seen for state in states if state.seen is not None]
    sure = all(one.doing in (Doing.WAITING, Doing.SENDING) or _ended(one, seen) for one in seen)
    if sure and all(_quiet(state) > sure_s for state in states):
        return _in_vain(states, seen, sure_s)
    if any(state.still_for <= limit_s for state in states):
        return None
    for worker, one in enumerate(seen):
        if one.doing in (Doing.COMPUTING, Doing.STORING):
            return Hang(worker, _no_cpu(one, limit_s) + _others(states, worker))
    return _in_vain(states, seen, limit_s)


def _ended(one: Seen, seen: Sequence[Seen]) -> bool:
    """Whether a worker without orders is one that has performed all for which the others wait."""
    return one.doing is Doing.IDLE and all(other.tag is None or one.round > other.tag.round for other in seen)


def _quiet(state: State) -> float:
    """Return for how many seconds the worker has made no progress and, if it has orders, slept."""
    assert state.seen is not None, "it has answered"
    return state.still_for if state.seen.doing is Doing.IDLE else min(state.still_for, state.asleep_for)


def _in_vain(states: Sequence[State], seen: Sequence[Seen], within_s: float) -> Hang | None:
    waits = [worker for worker, one in enumerate(seen) if one.doing in (Doing.WAITING, Doing.SENDING)]
    if not waits:
        return None
    worker, why, link = _end_of_waits(waits[0], seen)
    text = f"no progress of any worker {_within(within_s)}; {why}{_others(states, worker)}"
    return Hang(worker, text, link)


def _within(seconds: float) -> str:
    return f"within {seconds:.3g} s"


def _end_of_waits(worker: int, seen: Sequence[Seen]) -> tuple[int, str, tuple[int, int] | None]:
    """Follow the chain of waits from `worker` to the worker that waits in vain. Return that worker, the reason, and the
    link if it is one: its sender and its receiver."""
    chain = [worker]
    while True:
        here = seen[worker]
        assert here.peer is not None, "it waits for a worker"
        assert here.tag is not None, "it waits for an array"
        peer = seen[here.peer]
        if here.doing is Doing.SENDING and peer.doing is not Doing.SENDING:
            if (lost := _lost_link(here, here.peer)) is not None:
                return worker, f"it is {activity_text(here)}, {lost}", (worker, here.peer)
            return worker, f"it is {activity_text(here)}, which does not receive", None
        if here.doing is Doing.WAITING and peer.has_sent(here.tag):
            if (lost := _lost_link(peer, worker)) is not None:
                return worker, f"it is {activity_text(here)}, which has sent them; {lost}", (here.peer, worker)
            return worker, f"it is {activity_text(here)}, which has sent them: they were lost on the way", None
        if peer.doing not in (Doing.WAITING, Doing.SENDING):
            return worker, f"it is {activity_text(here)}, which is {activity_text(peer)}", None
        if here.peer in chain:
            circle = [*chain[chain.index(here.peer) :], here.peer]
            return here.peer, f"workers wait in a circle: {' for '.join(map(str, circle))}", None
        worker = here.peer
        chain.append(worker)


def _lost_link(sender: Seen, to: int) -> str | None:
    """Return what is wrong with the connection over which a worker sends to worker `to`; None if nothing is known."""
    link = next((link for link in sender.links if link.peer == to), LinkSeen(to, 0, waiting=False))
    if link.acknowledged is None:
        return "their connection is closed"
    return "no byte of it arrives" if link.waiting else None


def activity_text(seen: Seen) -> str:
    """Return what a worker does, in the words of an error."""
    if seen.doing is Doing.PREPARING:
        return "preparing"
    if seen.doing is Doing.IDLE:
        return "without orders"
    text = "between actions" if seen.action is None else f"in {seen.action}"
    if seen.action is not None:
        text += when(seen.step, evaluating=seen.evaluating)
    if seen.doing is Doing.STORING:
        text += ", reading or writing files"
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
