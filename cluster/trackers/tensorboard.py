"""Writes TensorBoard event files with TensorBoard's own library, without TensorFlow or torch.

[Note: points that are purged] A run that goes on writes another file into the same folder. It begins with the event by
which a writer tells that it has started again: readers then drop all points of that step and of later ones.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from cluster.trackers.tracker import Outcome, Point, TrackedRun
from coordinator import run_files
from coordinator.job.yaml_text import write_yaml

if TYPE_CHECKING:
    from tensorboard.summary.writer.record_writer import RecordWriter

_NAME = "events.out.tfevents."
_RECORD_HEAD, _RECORD_TAIL = 12, 4  # bytes: length and its checksum; the checksum of the content
_MOST_BYTES = 2**26  # of an event; more is damage


class TensorBoard:
    """Writes an event file with a scalar for each value and the job file as text. The file is in the run directory or,
    if `common` is given, in a folder of the run in `common`, where TensorBoard compares several runs."""

    def __init__(self, common: Path | None) -> None:
        self._common = common
        self._file: BinaryIO | None = None
        self._writer: RecordWriter | None = None

    def start(self, run: TrackedRun) -> Mapping[str, int]:
        """See Tracker. See [Note: points that are purged]."""
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder = (
            run.folder / run_files.TENSORBOARD if self._common is None else _own_folder(self._common.absolute(), run)
        )
        folder.mkdir(parents=True, exist_ok=True)
        earlier = sorted(folder.glob(f"{_NAME}*"))
        recorded = {name: min(step, run.after) for name, step in last_steps(earlier).items()}
        self._file = (folder / _next_name(earlier, run.attempt)).open("xb")
        self._writer = RecordWriter(self._file)
        self._event(time.time(), file_version="brain.Event:2")
        if earlier:
            self._event(time.time(), step=run.after + 1, session_log=SessionLog(status=SessionLog.START))
        text = "".join(
            f"    {line}\n" for line in write_yaml(dict(run.document)).splitlines()
        )  # Markdown's literal text
        self._event(time.time(), step=run.after, summary=_text("job", text))
        self._flush()
        return recorded

    def write(self, points: Sequence[Point]) -> None:
        """See Tracker."""
        for point in points:
            self._event(point.time, step=point.step, summary=_scalars(point.values))
        self._flush()

    def close(self, outcome: Outcome) -> None:
        """See Tracker."""
        if self._file is not None:
            self._file.close()

    def _event(self, wall_time: float, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        assert self._writer is not None, "it was started"
        self._writer.write(Event(wall_time=wall_time, **content).SerializeToString())

    def _flush(self) -> None:
        assert self._file is not None, "it was started"
        self._file.flush()


def last_steps(files: Sequence[Path]) -> dict[str, int]:
    """Return the last step of each scalar in event files. An event that a killed process did not write to its end is
    left out. Checksums are not compared."""
    from tensorboard.compat.proto.event_pb2 import Event

    found: dict[str, int] = {}
    for path in files:
        with path.open("rb") as file:
            while len(head := file.read(_RECORD_HEAD)) == _RECORD_HEAD:
                length = int.from_bytes(head[:8], "little")
                if length > _MOST_BYTES or len(record := file.read(length + _RECORD_TAIL)) < length + _RECORD_TAIL:
                    break
                event = Event.FromString(record[:length])
                if event.HasField("session_log"):  # what followed is written again
                    found = {name: min(step, event.step - 1) for name, step in found.items()}
                found |= {value.tag: event.step for value in event.summary.value if value.HasField("simple_value")}
    return found


def _next_name(earlier: Sequence[Path], attempt: int) -> str:
    """Return the name of a file that comes after the earlier ones: readers go by the order of the names."""
    seconds = time.time_ns() // 10**9
    if earlier:
        seconds = max(seconds, int(earlier[-1].name.removeprefix(_NAME).partition(".")[0]) + 1)
    return f"{_NAME}{seconds:010d}.{os.uname().nodename}.{os.getpid()}.{attempt}"


def _own_folder(common: Path, run: TrackedRun) -> Path:
    """Return a folder that no other run uses, even one with a run directory of the same name. A run that goes on, and
    later attempts, get the same folder."""
    claim = run.folder / run_files.TENSORBOARD_CLAIM
    if (run.attempt > 1 or run.after) and claim.exists() and (known := Path(claim.read_text("utf-8"))).parent == common:
        return known
    for count in itertools.count(1):
        found = common / (run.run if count == 1 else f"{run.run}-{count}")
        try:
            found.mkdir(parents=True)
            break
        except FileExistsError:
            if not common.is_dir():
                raise
    run.folder.mkdir(parents=True, exist_ok=True)
    claim.write_text(str(found), encoding="utf-8")
    return found


def _scalars(values: Mapping[str, float]) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])


def _text(tag: str, text: str) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto

    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    tensor = TensorProto(dtype="DT_STRING", string_val=[text.encode()])
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)])
