"""Copies a run's whole checkpoints to a URL, in a thread: training does not wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

from cluster.checkpoints.at_url import CheckpointsAtUrl
from cluster.checkpoints.manifest import Manifest
from cluster.data.files import one_line

_LOOK_EVERY_S = 0.2


class CheckpointUploads:
    """Copies one checkpoint after another; of several that wait, only the newest. `delete` deletes, there, those that
    are not needed any more: it is called when a newer one is whole. `event` is called with `checkpoint stored`, or with
    `checkpoint not saved`; any thread may call it."""

    def __init__(
        self, target: CheckpointsAtUrl, delete: Callable[[CheckpointsAtUrl], None], event: Callable[..., None]
    ) -> None:
        self._target, self._delete, self._event = target, delete, event
        self._changed = threading.Condition()
        self._waiting: tuple[Path, Manifest] | None = None
        self._under_way: int | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="checkpoint-uploads", daemon=True)
        self._thread.start()

    def offer(self, place: Path, manifest: Manifest) -> None:
        """Copy the checkpoint in this folder, which must stay as long as `busy` has its step."""
        with self._changed:
            self._waiting = place, manifest
            self._changed.notify_all()

    @property
    def busy(self) -> Collection[int]:
        """The steps of the checkpoints that are being copied, or wait for it."""
        with self._changed:
            waiting = () if self._waiting is None else (self._waiting[1].step,)
            return {*waiting, *(() if self._under_way is None else (self._under_way,))}

    def close(self, require_time: Callable[[], None]) -> None:
        """Wait until the newest checkpoint is copied. `require_time` is called now and then, and may end the wait by an
        error."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        while self._thread.is_alive():
            require_time()
            self._thread.join(_LOOK_EVERY_S)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._closed)
                if self._waiting is None:
                    return
                place, manifest = self._waiting
                self._waiting, self._under_way = None, manifest.step
            self._store(place, manifest)
            with self._changed:
                self._under_way = None

    def _store(self, place: Path, manifest: Manifest) -> None:
        began = time.monotonic()
        try:
            self._target.put(place, manifest)
        except Exception as error:  # every file system has its own errors; the run goes on
            self._event("checkpoint not saved", step=manifest.step, cause=f"{self._target.url}: {one_line(error)}")
            return
        seconds = time.monotonic() - began
        self._event(
            "checkpoint stored", step=manifest.step, url=self._target.url, bytes=manifest.n_bytes, seconds=seconds
        )
        try:
            self._delete(self._target)
        except Exception as error:
            detail = f"{self._target.url}: an old checkpoint cannot be deleted: {one_line(error)}"
            self._event("checkpoint stored", step=manifest.step, detail=detail)
