"""The signals that end a training of `train` and `resume`, and the exit codes that follow from them.

The first one lets the steps under way end and the state be saved. Launchers often deliver a signal twice, so only
Ctrl-C ends a run at once that is ending already; the grace limits all others.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from cluster.run.training import Run, RunResult

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
NOT_SAVED = 3
"""The exit code of a run that was stopped without a checkpoint of its last step."""


class EndSignals:
    """Handles SIGNALS in the block. Before `begin` they raise KeyboardInterrupt, because there is nothing to save."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._note: Callable[[str], None] = lambda text: None
        self._before: dict[int, Any] = {}
        self.number: int | None = None
        """The first signal that came; None for none."""

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._before_steps) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def begin(self, note: Callable[[str], None]) -> None:
        """Let signals end the run within its grace; `note` is called with a line about it. Ray has set its own handlers
        before this."""
        self._note = note
        for number in SIGNALS:
            signal.signal(number, self._end)

    def _before_steps(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number
        raise KeyboardInterrupt

    def _end(self, number: int, frame: FrameType | None) -> None:
        if self.number is None:
            self.number = number
            self._run.stop()
            again = "press Ctrl-C again" if number == signal.SIGINT else "press Ctrl-C"
            within = f"and saves within {self._run.grace_s:g} s"
            self._note(f"stopping after the steps in progress, {within}; {again} to end at once")
        elif number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt

    def exit_code(self, result: RunResult) -> int:
        """Return the exit code of the run that has ended."""
        if not result.stopped:
            return 0
        return self.code_if_saved if result.checkpoint == result.steps or not result.steps else NOT_SAVED

    @property
    def code_if_saved(self) -> int:
        """The exit code if nothing that the run computed is lost: 128 and the number of the signal."""
        return 128 + (self.number or signal.SIGINT)
