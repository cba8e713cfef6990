"""Waits for the results of a submission, and finds the worker that failed, died or hangs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, Protocol, TypeVar

from cluster.actors.asking import ProgressQuestions, Sights
from cluster.actors.packing import unpack_result
from cluster.actors.ray_session import full_here
from coordinator.train.failures import Death, first_cause, first_of, is_echo, picture
from coordinator.train.liveness import Hang, Liveness, Sight, activity_text
from coordinator.train.pace import ActionPace
from stages.actions import Program
from stages.errors import FailurePlace, JobFailed, LinkLost, WorkerHung, WorkerLost
from stages.orders import Failure, Report, Result
from stages.progress import Seen

PROBE_ANSWER_S = 3.0  # a running process answers at once
_WATCH_EVERY_S = 0.25
_TOGETHER_S = 0.1  # failures that come so soon after one another have one cause
_Error = TypeVar("_Error", bound=JobFailed)


class Watched(Protocol):
    """What a watch needs of the workers."""

    @property
    def ray(self) -> Any:
        """The Ray module."""

    @property
    def program(self) -> Program:
        """The program of a full step."""

    @property
    def hang_timeout(self) -> float:
        """Seconds after which a worker without progress, or without an answer, counts as hanging."""

    @property
    def pace(self) -> ActionPace:
        """How long actions normally take."""

    def questions(self) -> ProgressQuestions:
        """Return new questions to all workers."""

    def sights(self) -> Sights:
        """Return what looks at workers that do not answer."""

    def host(self, worker: int) -> str:
        """Return the name of a worker's host, and its Ray node if several are on that host."""

    def place(self, worker: int) -> str:
        """Return a worker's name for errors."""

    def seen(self, workers: Sequence[int]) -> dict[int, Seen]:
        """Return what each of these workers is doing. Workers that do not answer within a few seconds are left out."""


@dataclass
class RayTicket:
    """A submission: a call to each worker."""

    refs: list[Any]
    collector: Callable[[Sequence[Any]], Sequence[Sequence[Report]]]

    def collect(self) -> Sequence[Sequence[Report]]:
        """See Ticket."""
        return self.collector(self.refs)


@dataclass
class Watch:
    """Waits for one submission, and checks workers that take long."""

    workers: Watched
    refs: list[Any]
    results: dict[Any, Result] = field(default_factory=dict)

    def __post_init__(self) -> None:
        limit = self.workers.hang_timeout
        self._sure = self.workers.pace.limit(limit)
        self._liveness = Liveness(len(self.refs), limit, self._sure, _WATCH_EVERY_S)
        self._sign = [time.monotonic()] * len(self.refs)  # the last sign of life
        self._found: list[Failure | Death] = []
        self._deaths: dict[int, tuple[Exception, float]] = {}  # with the time when each was found
        self._questions, self._sights = self.workers.questions(), self.workers.sights()

    @property
    def waiting(self) -> list[Any]:
        """The calls that have not returned."""
        return [ref for ref in self.refs if ref not in self.results]

    def look(self) -> None:
        """Wait up to _WATCH_EVERY_S for a result. Raises JobFailed if a worker failed, died or hangs."""
        if self._take(1, _WATCH_EVERY_S):
            if self._found:
                self._raise_first_cause()
        else:
            self._look_after()

    def _take(self, n: int, within_s: float) -> bool:
        """Wait up to `within_s` for `n` results and take in what has come; return whether anything has."""
        ray = self.workers.ray
        ready, _ = ray.wait(self.waiting, num_returns=n, timeout=within_s)
        for ref in ready:
            worker = self.refs.index(ref)
            try:
                result = unpack_result(ray.get(ref))
            except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as error:
                self._deaths[worker] = error, time.monotonic()
                self._found.append(Death(worker, what_was_lost(error)))
                result = Result()
            except ray.exceptions.RayError as error:
                text = last_line(getattr(error, "cause", None) or error)
                result = Result(failure=Failure(kind="raised", worker=worker, step=None, action=None, message=text))
            if result.failure is not None:
                self._found.append(result.failure)
            self.results[ref] = result
        return bool(ready)

    def _raise_first_cause(self) -> NoReturn:
        """Raise the first cause. Others may be on their way: wait for them, longer if what came is mostly an echo."""
        echoes = all(map(is_echo, self._found))
        if self.waiting:
            self._take(len(self.waiting), PROBE_ANSWER_S if echoes else _TOGETHER_S)
        first = first_of(self._found, self.workers.program)
        if isinstance(first, Death):
            raise self._lost(first)
        if first.kind == "timeout" and (silent := self._silent()):
            raise self._hung(Hang(silent[0], f"no answer; {first.message} (worker {first.worker})"))
        raise first_cause([first], self.workers.program)

    def _lost(self, death: Death) -> WorkerLost:
        worker = death.worker
        error, found = self._deaths[worker]
        seen = self.workers.seen([w for w in range(len(self.refs)) if w not in self._deaths])
        meanwhile = [f"worker {w} was {activity_text(one)}" for w, one in sorted(seen.items())]
        last = self._liveness.last_seen(worker)
        where = f" last seen {last};" if last is not None else ""
        lost = WorkerLost(
            f"{self.workers.place(worker)} died:{where} {cause_of_death(error, full_here(self.workers.ray))}"
            + (f"; meanwhile {', '.join(meanwhile)}" if meanwhile else "")
        )
        lost.loss = death.loss
        lost.found_s = found - self._sign[worker]
        return self._with_picture(lost, worker, seen)

    def _with_picture(self, error: _Error, worker: int, seen: Mapping[int, Seen]) -> _Error:
        """Return the error with its place and a drawing of where the workers were, `seen` and the lost one."""
        last = self._liveness.seen(worker)
        all_seen = dict(seen) if last is None else {**seen, worker: last}
        error.traceback = picture(self.workers.program, worker, all_seen)
        return placed_at(error, worker)

    def _silent(self) -> list[int]:
        waiting = [self.refs.index(ref) for ref in self.waiting]
        answered = self.workers.seen(waiting)
        return [worker for worker in waiting if worker not in answered]

    def _look_after(self) -> None:
        """Check all workers, even those that have ended this submission: another worker may wait for one of them."""
        asked = time.monotonic()
        answers = self._questions.ask()
        for worker in answers:
            self._sign[worker] = asked
        sights = {w: self._sight(w, answers) for w in range(len(self.refs)) if w not in answers}
        hang = self._liveness.take(asked, answers, sights)
        if hang is not None:
            raise self._hung(hang)

    def _sight(self, worker: int, answers: Mapping[int, Seen]) -> Sight:
        """Look at a silent worker once it is silent for so long that it matters."""
        if time.monotonic() - self._sign[worker] < self._sure:
            return Sight.UNKNOWN
        return self._sights.look(worker, self._liveness.seen(worker), answers)

    def _hung(self, hang: Hang) -> JobFailed:
        hung: JobFailed
        if hang.link is not None:
            hung = LinkLost(f"{self._link(*hang.link)}: {self.workers.place(hang.worker)} waits in vain: {hang.why}")
        elif hang.sight is Sight.UNREACHABLE:
            hung = WorkerLost(f"{self.workers.place(hang.worker)} is cut off: {hang.why}")
            hung.loss = "link"
        else:
            hung = WorkerHung(f"{self.workers.place(hang.worker)} hangs: {hang.why}")
        hung.found_s = self._liveness.without_progress_for(hang.worker)
        known = ((w, self._liveness.seen(w)) for w in range(len(self.refs)))
        return self._with_picture(hung, hang.worker, {w: seen for w, seen in known if seen is not None})

    def _link(self, sender: int, receiver: int) -> str:
        ends = (f"worker {worker} on {self.workers.host(worker)}" for worker in (sender, receiver))
        return f"the link between {' and '.join(ends)} is lost"


def placed_at(error: _Error, worker: int) -> _Error:
    """Return the error with its place: this worker."""
    error.place = FailurePlace(worker)
    return error


def last_line(error: BaseException) -> str:
    """Return the last line of a Ray error, which names the cause; the lines above it say where Ray noticed it."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)


def what_was_lost(error: BaseException) -> Literal["process", "memory", "node"]:
    """Return what took the actor, by Ray's error."""
    if "running low on memory" in str(error):
        return "memory"
    return "node" if "node has died" in str(error) or "node was terminated" in str(error) else "process"


def cause_of_death(error: BaseException, full: str) -> str:
    """Return why an actor died, by Ray's error, in one line. `full` is the text of `full_here`."""
    lost = what_was_lost(error)
    if lost == "memory":
        return "Ray ended its process because the host ran low on memory"
    if lost == "node":
        return "its node was lost: Ray there, the host, or the network to it"
    ended = "its process ended unexpectedly"
    return (
        f"{ended}; {full}" if full else f"{ended}: killed from outside, by the kernel for lack of memory, or by a crash"
    )
