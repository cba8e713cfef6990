"""A run's checkpoints: decides when the workers save, makes their files whole, and deletes what is not needed."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cluster.checkpoints.at_url import CheckpointsAtUrl
from cluster.checkpoints.folder import CheckpointFolder, read_manifest
from cluster.checkpoints.manifest import Manifest, in_layer_order
from cluster.checkpoints.uploading import CheckpointUploads
from cluster.checkpoints.whole_model import CheckpointParameters
from coordinator.checkpoints.policy import KeptCheckpoint, is_due, to_delete
from coordinator.checkpoints.position import START, Position
from coordinator.job.checkpoint_section import CheckpointSection
from coordinator.job.spec import JobSpec
from coordinator.train.rows import EvalRow, StepRow
from stages.data import batch_bounds
from stages.errors import GraceOver, InvalidData
from stages.snapshots import Written

Event = Callable[..., None]
_AFTER_ERROR_S = 60.0


class RunCheckpoints:
    """See coordinator.train.saving.Checkpointing. Without a `section` only the end of the run is saved. `event` is
    called with `checkpoint` or `checkpoint not saved`. Checkpoints are copied to the section's URL, if it has one."""

    def __init__(
        self,
        folder: CheckpointFolder,
        section: CheckpointSection | None,
        spec: JobSpec,
        *,
        fingerprint: int,
        train_rows: int,
        event: Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self._section, self._spec = folder, section, spec
        self._fingerprint, self._train_rows, self._event, self._clock = fingerprint, train_rows, event, clock
        self._since = clock()
        self._stall_s: float | None = None  # None before the first
        self._steps_per_epoch = len(batch_bounds(train_rows, spec.training.batch_size))
        self._wanted, self._tells = False, True
        self._position, self._writing = START, False
        self.open_row: Callable[[], Sequence[StepRow]] = tuple
        """Returns the steps of the row of metrics that is not complete."""
        self.is_urgent: Callable[[], bool] = lambda: False
        """Returns whether the state must be saved as soon as possible, also without a `section`."""
        self._parts: list[Written | None] = []
        self._validation: dict[int, Mapping[str, float]] = {}
        to = None if section is None else section.to
        self._uploads = None if to is None else CheckpointUploads(CheckpointsAtUrl(to), self._delete, event)

    @property
    def pending(self) -> bool:
        """See Checkpointing."""
        return self._writing

    def evaluated(self, row: EvalRow) -> None:
        """Take in an evaluation: its figures go into the next checkpoint."""
        figures = {"loss": row.loss_per_row, "accuracy": row.accuracy}
        self._validation[row.step] = {name: value for name, value in figures.items() if value is not None}

    def due(self, step: int) -> bool:
        """See Checkpointing. A checkpoint that is due while another is written begins after that."""
        self._wanted |= self.is_urgent()
        if self._section is not None:
            since = self._clock() - self._since
            self._wanted |= is_due(self._section.when(), step, since_s=since, stall_s=self._stall_s)
        return self._wanted and not self.pending and self._ends_row(step) and self._begin(Position(step=step))

    def _ends_row(self, step: int) -> bool:
        """Whether a row of metrics ends with this step, so that a run that goes on after it writes the same rows."""
        return step % self._spec.training.log_every == 0 or step % self._steps_per_epoch == 0

    def at_end(self, step: int, *, owes_evaluation: bool) -> bool:
        """See Checkpointing."""
        open_row = tuple(row.as_dict() for row in self.open_row())
        self._tells = False  # the event of the end tells it
        return self._begin(Position(step=step, owes_evaluation=owes_evaluation, open_row=open_row))

    def _begin(self, position: Position) -> bool:
        """Begin a checkpoint, unless it is there or under way."""
        step = position.step
        if self._position.step == step or (not self.pending and step in self.folder.steps()):
            return False
        try:
            self.folder.begin(step)
        except OSError as error:
            self._not_saved(step, error.strerror or str(error))
            return False
        self._position, self._writing = position, True
        self._parts, self._since, self._wanted = [], self._clock(), False
        return True

    def copied(self, step: int, seconds: Sequence[float]) -> None:
        """See Checkpointing."""
        self._stall_s = max(seconds, default=0.0)

    def written(self, outcomes: Sequence[Written | None]) -> None:
        """See Checkpointing."""
        if not self._writing:
            return
        step = self._position.step
        self._parts = self._parts or [None] * len(outcomes)
        self._parts = [new or old for new, old in zip(outcomes, self._parts, strict=True)]
        parts = [part for part in self._parts if part is not None]
        if len(parts) < len(self._parts):
            return
        self._writing, self._parts = False, []
        if errors := [part.error for part in parts if part.error]:
            self._not_saved(step, errors[0])
            return
        manifest = Manifest(
            position=self._position,
            document=self._spec.document(),
            fingerprint=self._fingerprint,
            train_rows=self._train_rows,
            files=in_layer_order([file for part in parts for file in part.files]),
            validation=self._evaluation_before(step),
            written_at=time.time(),
        )
        try:
            final = self.folder.finish(manifest)
        except OSError as error:
            self._not_saved(step, error.strerror or str(error))
            return
        seconds = self._clock() - self._since
        if self._tells:
            self._event(
                "checkpoint",
                step=step,
                bytes=manifest.n_bytes,
                seconds=seconds,
                write_seconds=max(part.seconds for part in parts),
                stall_seconds=self._stall_s,
            )
        if self._uploads is not None:
            self._uploads.offer(final, manifest)
        self._delete(self.folder)

    @contextlib.contextmanager
    def uploading(self, require_time: Callable[[], None]) -> Iterator[None]:
        """After the block, wait until the last checkpoint is copied to its URL, or until `require_time` raises
        GraceOver; after an error, for at most a minute."""
        end = math.inf

        def look() -> None:
            require_time()
            if self._clock() > end:
                raise GraceOver("a checkpoint was not copied in time")

        try:
            yield
        except BaseException as error:
            end = self._clock() + (_AFTER_ERROR_S if isinstance(error, Exception) else 0.0)
            raise
        finally:
            if self._uploads is not None:
                with contextlib.suppress(GraceOver):
                    self._uploads.close(look)

    def forget(self, token: str) -> None:
        """Give up the checkpoint under way: a worker that wrote a part of it is lost. The workers write with another
        token from now on (see `step_folder`)."""
        self.go_on()
        if self._writing:
            self.folder.abandon(self._position.step)
            self._position, self._writing, self._parts = START, False, []
        self.folder = CheckpointFolder(self.folder.path, token)

    def go_on(self) -> None:
        """Take back that the run ends (`at_end`)."""
        self._tells = True

    def parameters(self, step: int) -> CheckpointParameters | None:
        """Return the parameters in the checkpoint of this step; None if there is none."""
        if step not in self.folder.steps():
            return None
        ops = self._spec.model_spec().network.ops
        own = [name for op in ops for name, spec in op.parameters if spec.tied_to is None]
        place = self.folder.place(step)
        return CheckpointParameters(place, read_manifest(place), tuple(own))

    def _evaluation_before(self, step: int) -> Mapping[str, float] | None:
        known = [one for one in self._validation if one <= step]
        return self._validation[max(known)] if known else None

    def _not_saved(self, step: int, reason: str) -> None:
        self._position, self._writing, self._since = START, False, self._clock()
        self.folder.abandon(step)
        self._event("checkpoint not saved", step=step, cause=reason)

    def _delete(self, folder: CheckpointFolder) -> None:
        """Delete the checkpoints that are not needed any more, but for those that are being copied."""
        section, figure = self._section or CheckpointSection(), None
        if section.best is not None:
            figure = section.best.removeprefix("validation_")
        kept = []
        for step in folder.steps():
            try:
                found: Mapping[str, Any] = read_manifest(folder.place(step)).validation or {}
            except InvalidData:
                found = {}
            kept.append(KeptCheckpoint(step, None if figure is None else found.get(figure)))
        busy = self._uploads.busy if self._uploads is not None and folder is self.folder else ()
        for step in to_delete(kept, keep=section.keep, keep_every=section.keep_every, best=section.best):
            if step not in busy:
                folder.delete(step)
