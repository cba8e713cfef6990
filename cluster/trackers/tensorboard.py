"""Writes TensorBoard event files with TensorBoard's own library, without TensorFlow or torch."""

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


class TensorBoard:
    """Writes an event file with a scalar for each value and the job file as text. The file is in the run directory or,
    if `common` is given, in a folder of the run in `common`, where TensorBoard compares several runs."""

    def __init__(self, common: Path | None) -> None:
        self._common = common
        self._file: BinaryIO | None = None
        self._writer: RecordWriter | None = None

    def start(self, run: TrackedRun) -> None:
        """See Tracker."""
        from tensorboard.summary.writer.record_writer import RecordWriter

        logs = run.folder / run_files.TENSORBOARD if self._common is None else _own_folder(self._common.absolute(), run)
        folder = logs if run.attempt == 1 else logs / f"attempt-{run.attempt}"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns() // 10**9:010d}.{os.uname().nodename}.{os.getpid()}.{run.attempt}"
        self._file = (folder / name).open("xb")
        self._writer = RecordWriter(self._file)
        self._event(time.time(), file_version="brain.Event:2")
        text = "".join(
            f"    {line}\n" for line in write_yaml(dict(run.document)).splitlines()
        )  # Markdown's literal text
        self._event(time.time(), summary=_text("job", text))
        self._flush()

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


def _own_folder(common: Path, run: TrackedRun) -> Path:
    """Return a folder that no other run uses, even one with a run directory of the same name. Later attempts get the
    same folder."""
    claim = run.folder / run_files.TENSORBOARD_CLAIM
    if run.attempt > 1 and claim.exists():
        return Path(claim.read_text(encoding="utf-8"))
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
