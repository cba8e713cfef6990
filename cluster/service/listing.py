"""Long lists of jobs. The record of an ended job does not change, so its message is serialised once and kept.

A part of the answer is the serialised messages of its jobs one after another: joined protobuf messages of the same type
are one message.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence

from cluster.service.entry import JobView
from cluster.service.jobs import Jobs
from cluster.service.messages import job_message
from cluster.wire import pipetrain_pb2 as pb

_JOBS_A_PART = 500
_MOST_KEPT = 20_000  # some 4 MB


class Listing:
    """Answers List."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._kept: OrderedDict[str, bytes] = OrderedDict()

    async def parts(self, states: Sequence[str], name: str, limit: int) -> AsyncIterator[bytes]:
        """Yield serialised ListResponses: jobs, newest first."""
        found = await asyncio.to_thread(self._jobs.store.select_ids, states, name, limit)
        for start in range(0, len(found), _JOBS_A_PART):
            part = found[start : start + _JOBS_A_PART]
            await self._keep([job for job in part if job not in self._jobs.entries and job not in self._kept])
            yield b"".join(self._bytes(job) for job in part)

    async def _keep(self, ended: Sequence[str]) -> None:
        if not ended:
            return
        records = await asyncio.to_thread(self._jobs.store.records, ended)
        for record in records:
            if record.state.ended:
                self._kept[record.id] = _serialised(self._jobs.view(record))
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)

    def _bytes(self, job: str) -> bytes:
        entry = self._jobs.entries.get(job)
        if entry is not None:
            return _serialised(self._jobs.view(entry.live_record()))
        kept = self._kept.get(job)
        if kept is None:
            record = self._jobs.store.get(job)  # it ended since the ids were selected, or was deleted
            return b"" if record is None else _serialised(self._jobs.view(record))
        return kept


def _serialised(view: JobView) -> bytes:
    return pb.ListResponse(jobs=[job_message(view)]).SerializeToString()
