"""All jobs of the service: accepts them, starts them when their turn comes, follows them, ends them.

Everything here runs in one event loop. A change is written to the store, then made in memory, then its commands are
sent to the Ray agent; after a crash in between, `connected` sends the commands again (see
`coordinator.queue.job_states`).

[Note: noted, then done] A change runs in a task of its own, so it is completed even if the caller cancels its call.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from cluster.data.rules import SourceRules
from cluster.service import store
from cluster.service.changes import logged, submitted
from cluster.service.commands import Commands
from cluster.service.entry import Entry, JobView
from cluster.service.faults import strike
from cluster.service.following import Following
from cluster.service.home import Home
from cluster.service.job_ids import find_id
from cluster.service.leftovers import end_leftovers
from cluster.service.making_room import make_room
from cluster.service.noting import AGAIN_S, Noting
from cluster.service.records import JobDocument, JobRecord
from cluster.service.refusals import NoSpace, QueueFull, StoreTrouble, SubmissionIdTaken
from cluster.service.run_feed import RunFeed
from cluster.service.stats_board import StatsBoard
from cluster.service.store import Store
from cluster.service.tracking import end_tracking, left_open
from coordinator.job.checkpoint_section import GRACE_MOST_S
from coordinator.queue.happenings import Admitted, ClusterLost, RunnerLost, ServiceEnds, StopRequested
from coordinator.queue.job_queue import Capacity, Choice, Queue, Waiting, choose
from coordinator.queue.job_states import Launch, Queued, Recovering, Running, SendStop, Starting
from stages.errors import Refused, UnknownJob, UserMistake

T = TypeVar("T")
RECOVERING_PRIORITY = 1_000_000_000
"""Priority of a job whose processes were lost for reasons outside the job: it is scheduled before all waiting jobs."""
_SCHEDULE_PAUSE_S = 0.02  # so that many submissions are scheduled together
_SILENT_LIMIT_S = 90
_PAUSE_LOOK_S = 0.02
_TRIES_AT_THE_END = 3  # to note lost jobs when the service ends


class Jobs:
    """The jobs of one home. `send` gives a command to the Ray agent, or drops it if no agent is connected."""

    def __init__(self, home: Home, jobs: Store, *, max_queued: int, send: Callable[[Mapping[str, Any]], None]) -> None:
        self.home, self.store, self.max_queued = home, jobs, max_queued
        self._commands = Commands(home, jobs, send)
        self.noting = Noting(self, self._commands)
        self.following = Following(self, self.noting)
        self.entries: dict[str, Entry] = {}
        self.board = StatsBoard()
        self.nodes: Sequence[Mapping[str, Any]] = ()
        self.closing = False
        self._active: dict[str, Entry] = {}
        self._queue = Queue()
        self._choice: Choice = choose((), (), ())
        self._look = asyncio.Event()
        self._arriving = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ending: set[asyncio.Task[None]] = set()
        for record in jobs.unfinished():
            self._place(Entry(record))

    @property
    def rules(self) -> SourceRules:
        """The rules that define which data jobs may read."""
        return self._commands.rules

    @rules.setter
    def rules(self, rules: SourceRules) -> None:
        self._commands.rules = rules

    # requests of callers -------------------------------------------------------------------------------------------

    async def submit(self, record: JobRecord, document: JobDocument) -> JobRecord:
        """Accept a job and return its record. If a job with its submission id exists, return that one instead.

        Raises QueueFull, or SubmissionIdTaken if the existing job has another document.
        """
        return await self.unbroken(self._take_in(record, document))

    async def stop(self, job: str, now: bool, grace: float | None = None) -> JobRecord:
        """Note the request to stop a job, and begin to stop it; it may take `grace` seconds to save, None for those of
        the job. Return the record afterwards. Raises UserMistake for a wrong number."""
        if grace is not None and not 0 <= grace <= GRACE_MOST_S:
            raise UserMistake(f"grace: got {grace:g}, must be a number of seconds from 0 to {GRACE_MOST_S:,}")
        return await self.unbroken(self._note_stop(job, now, grace))

    async def delete(self, job: str) -> None:
        """Delete a job that has ended. Raises Refused if it has not ended, UnknownJob if it does not exist."""
        await self.unbroken(self._forget(job))

    async def find(self, prefix: str) -> str:
        """Return the id of the job with this id, beginning of an id, or name. Raises UnknownJob (see `find_id`). Runs
        in a thread, because the error's search for the nearest name compares thousands."""
        return prefix if prefix in self.entries else await asyncio.to_thread(find_id, self.store, prefix)

    def record(self, job: str) -> JobRecord:
        """Return the job's present record. Raises UnknownJob."""
        entry = self.entries.get(job)
        found = self.store.get(job) if entry is None else entry.live_record()
        if found is None:
            raise UnknownJob(f"job {job} was deleted")
        return found

    def view(self, record: JobRecord) -> JobView:
        """Return the job as callers see it."""
        entry = self.entries.get(record.id)
        hindrances = () if entry is None or record.state.ended else entry.hindrances.values()
        trouble = next(iter(hindrances), "" if record.state.ended else self.noting.trouble)
        if isinstance(record.state, Queued) and record.id in self._queue:
            position = self._queue.position(record.id)
            waits = self._choice.explain(self._waiting(record), position)
            reason = trouble or (f"{record.state.why}; {waits}" if record.state.why else waits)
            return JobView(record=record, reason=reason, position=position, queue_length=len(self._queue))
        if trouble:
            return JobView(record=record, reason=trouble)
        if entry is not None and entry.silent_s and not record.state.ended:
            return JobView(record=record, reason=f"its runner has not answered for {entry.silent_s} s")
        return JobView(record=record, reason=record.reason)

    def __len__(self) -> int:
        """The number of waiting jobs."""
        return len(self._queue)

    def waiting(self, most: int) -> list[JobRecord]:
        """Return the first `most` jobs of the queue, in order."""
        return [self.entries[waiting.job].record for waiting in itertools.islice(self._queue, most)]

    def active(self) -> list[JobRecord]:
        """Return the jobs that have processes."""
        return [entry.live_record() for entry in self._active.values()]

    def active_entries(self) -> list[Entry]:
        """Return the entries of the jobs that have processes."""
        return list(self._active.values())

    async def _take_in(self, record: JobRecord, document: JobDocument) -> JobRecord:
        known = self.store.by_submission(record.submission_id) is not None
        if not known and len(self._queue) + self._arriving >= self.max_queued:
            raise QueueFull(
                f"{len(self._queue):,} jobs wait, which is the limit of the queue; wait until some have started, "
                "or start the service with a larger --max-queued"
            )
        self._arriving += 1
        try:
            stored, new = await self.noting.write(store.insert(record, document, submitted(record)))
        finally:
            self._arriving -= 1
        strike("accepted")
        if new:
            self._place(Entry(stored))
        elif self.store.document(stored.id) != document:
            raise SubmissionIdTaken(
                f"submission id {record.submission_id!r} belongs to job {stored.id}, which has another document"
            )
        return self.record(stored.id)

    async def _note_stop(self, job: str, now: bool, grace: float | None) -> JobRecord:
        entry = self.entries.get(job)
        if entry is not None:
            within = "" if grace is None else f", and to save within {grace:g} s"
            how = "asked to stop at once" if now else f"asked to stop after the steps under way{within}"
            await self.noting.apply(entry, StopRequested(time.time(), now, grace), "stop requested", how)
            strike("stop noted")
        return self.record(job)

    async def _forget(self, job: str) -> None:
        record = self.record(job)
        if not record.state.ended:
            raise Refused(f"job {job} is {record.state.name}; only a job that has ended can be deleted: stop it first")
        folder = self.home.run_directory(job)
        try:
            await self.noting.write(store.delete(job))
        except NoSpace:  # the job's own files may fill the disk: remove them first
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            await self.noting.write(store.delete(job))
        self.board.jobs.pop(job, None)
        if folder.exists():
            aside = folder.with_name(f".deleted-{job}")  # disappears at once; its files are removed below
            with contextlib.suppress(OSError):
                folder.rename(aside)
            await asyncio.to_thread(shutil.rmtree, aside, ignore_errors=True)

    # changes -------------------------------------------------------------------------------------------------------

    def move(self, entry: Entry, after: JobRecord) -> None:
        """Set the job's record and put the job into the group of its new state."""
        before, entry.record = entry.record, after
        if type(before.state) is not type(after.state):
            self._active.pop(after.id, None)
            if after.id in self._queue:
                self._queue.remove(after.id)
            self._place(entry)
        entry.wake_watchers()

    def _place(self, entry: Entry) -> None:
        record, job = entry.record, entry.record.id
        self._look.set()
        if record.state.ended:
            self.entries.pop(job, None)
            self.board.ended(record)
            strike("ended")
            self._end_tracking(record)
            return
        self.entries[job] = entry
        if isinstance(record.state, (Queued, Recovering)):
            self.board.waits(record)
            entry.feed, entry.silent_s = None, 0
            self._queue.add(self._waiting(record))
            return
        self._active[job] = entry
        if entry.feed is None:
            stats = self.board.begins(record)
            entry.feed = RunFeed(self.home.run_directory(job), record.attempt, record.events_read, stats)

    def _end_tracking(self, record: JobRecord) -> None:
        """Close the job's trackers if its runner could not, because it was killed."""
        folder = self.home.run_directory(record.id)
        if not self.closing and left_open(folder):
            task = asyncio.get_running_loop().create_task(end_tracking(folder, record.state))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def tracking_ended(self, within_s: float) -> None:
        """Wait until the runs that jobs left open at their trackers are closed, but at most `within_s` seconds."""
        if self._ending:
            _, late = await asyncio.wait(self._ending, timeout=within_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _waiting(self, record: JobRecord) -> Waiting:
        """Return a waiting job as the queue sees it."""
        priority = RECOVERING_PRIORITY if isinstance(record.state, Recovering) else record.priority
        return Waiting(
            job=record.id,
            priority=priority,
            order=record.order,
            needs=record.needs.resolved(self._commands.memory_per_cpu),
            displaces_below=record.priority if record.preempt else None,
        )

    async def settle(self) -> None:
        """Wait until all started changes are made."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def unbroken(self, change: Coroutine[Any, Any, T]) -> T:
        """See [Note: noted, then done]."""
        return await asyncio.shield(self.begin(change))

    def begin(self, change: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a change that `settle` waits for."""
        task = asyncio.get_running_loop().create_task(change)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def connected(self) -> None:
        """Find the active jobs' runners again, after an agent connected to the Ray in which they were started."""
        for entry in list(self._active.values()):
            state = entry.record.state
            if isinstance(state, Starting):
                await self.noting.perform(entry, Launch(state.attempt))
            elif isinstance(state, Running):
                self._commands.adopt(entry.record, state.attempt)
            if isinstance(state, (Starting, Running)) and state.stop is not None:
                await self.noting.perform(entry, SendStop(state.attempt, state.stop.now, state.stop.grace))

    async def pause(self, within_s: float) -> None:
        """Let all active jobs save their state, because the service is being shut down; wait at most `within_s`."""
        for entry in self.active_entries():
            with logged(f"job {entry.record.id} could not be asked to save"):
                what = "the service is being shut down; saves its state"
                await self.noting.apply(entry, ServiceEnds(time.time()), "service ends", what)
        end = time.monotonic() + within_s
        while self._active and time.monotonic() < end:
            await asyncio.sleep(_PAUSE_LOOK_S)

    async def cluster_lost(self, cause: str, *, planned: bool = False) -> None:
        """Note that Ray and all runners are gone, after reading what the runners had written. While the store cannot be
        written, this waits; if the service is ending, it gives up after a few tries."""
        for entry in list(self._active.values()):
            with logged(f"the loss of job {entry.record.id} could not be noted"):
                for tries in itertools.count(1):
                    try:
                        await self._note_loss(entry, cause, planned)
                        break
                    except StoreTrouble:
                        if self.closing and tries >= _TRIES_AT_THE_END:
                            raise
                        await asyncio.sleep(AGAIN_S)

    async def _note_loss(self, entry: Entry, cause: str, planned: bool) -> None:
        with contextlib.suppress(OSError):
            await self.following.read(entry)
        attempt = entry.attempt
        if attempt is not None:
            end_leftovers(self.store, entry)
            await self.noting.apply(entry, ClusterLost(cause, planned), "cluster lost", cause, attempt=attempt)

    def cluster_is(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        """Set the nodes of the cluster; none while Ray is not connected."""
        self.nodes = nodes
        shares = [int(node["memory"] // node["cpus"]) for node in nodes if node["cpus"] >= 1]
        if shares and min(shares) != self._commands.memory_per_cpu:
            self._commands.memory_per_cpu = min(shares)
            self._queue = Queue(self._waiting(self.entries[waiting.job].record) for waiting in self._queue)
        self._look.set()

    async def runner_gone(
        self, job: str, attempt: int, cause: str, ending: Mapping[str, Any] | None = None, *, again: bool = True
    ) -> None:
        """Note the end of a runner. How the attempt ended follows from the runner's events, or from `ending`, an event
        that it could not write; without either, the attempt is lost, and with `again` another one may succeed. Raises
        StoreTrouble."""
        entry = self._active.get(job)
        if entry is not None and entry.attempt == attempt and not self.closing:
            with contextlib.suppress(OSError):
                await self.following.read(entry)
            if ending and entry.attempt == attempt:
                await self.following.take_event(entry, attempt, ending)
            if entry.attempt == attempt:
                end_leftovers(self.store, entry)
                await self.noting.apply(entry, RunnerLost(cause, again), "runner lost", cause, attempt=attempt)
        record = self.store.get(job) if entry is None else entry.record
        if record is not None:
            self._commands.forget(record, attempt)

    def runner_silent(self, job: str, attempt: int, seconds: int) -> None:
        """Note that a runner has not answered for `seconds`; 0: it answers again. A runner that is silent for more than
        _SILENT_LIMIT_S is ended."""
        entry = self._active.get(job)
        if entry is not None and entry.attempt == attempt:
            entry.silent_s = seconds
            entry.wake_watchers()
            if seconds > _SILENT_LIMIT_S:
                self._commands.end_runner(entry.record, attempt)

    async def keep_scheduling(self) -> None:
        """Start jobs when their turn comes."""
        while True:
            await self._look.wait()
            self._look.clear()
            needs = [entry.record.needs.resolved(self._commands.memory_per_cpu) for entry in self._active.values()]
            nodes = [Capacity(cpus=int(node["cpus"]), memory=int(node["memory"])) for node in self.nodes]
            self._choice = choose(self._queue, needs, () if self.closing else nodes)
            await self._start_chosen()
            if not self.closing:
                await make_room(self, self.noting, self._queue, self._commands.memory_per_cpu, nodes, self._look.set)
            for entry in self.entries.values():
                if entry.watchers and isinstance(entry.record.state, Queued):
                    entry.wake_watchers()
            await asyncio.sleep(_SCHEDULE_PAUSE_S)

    async def _start_chosen(self) -> None:
        for job in self._choice.starts:
            entry = self.entries.get(job)
            if entry is None:  # stopped while this loop started another job
                continue
            with logged(f"job {job} could not be started"):
                try:
                    turn = self.noting.apply(entry, Admitted(), "admitted", "its turn has come")
                    await self.unbroken(turn)
                except StoreTrouble:  # nothing else may wake the queue, so a timer does
                    asyncio.get_running_loop().call_later(AGAIN_S, self._look.set)
                    return

    async def keep_following(self) -> None:
        """Follow the run directories for as long as the service runs."""
        await self.following.keep()
