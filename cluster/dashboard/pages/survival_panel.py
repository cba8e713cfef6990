"""The panel of a job's page about its checkpoints, and the losses that it has survived."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nicegui import ui

from cluster.dashboard.frame import heading
from cluster.dashboard.parts import facts, fill_table, table
from cluster.dashboard.texts import brief, clock
from cluster.service.survival import DAMAGED, NOT_SAVED, SAVED, LostWorker, SavedCheckpoint, Survival
from coordinator.texts import counted, size, span

FACTS = ("newest checkpoint", "written", "its size", "time to write", "training stood still", "checkpoints")
LOSS_COLUMNS = ("time", "worker", "what happened", "found after", "replaced after", "new step after", "made again")
_LOSSES = 10


class SurvivalPanel:
    """The figures of the newest checkpoint, and a line for each of the last losses. Hidden if there is neither."""

    def __init__(self, checkpoints: Path) -> None:
        self._folder, self._shown = checkpoints, -1
        with ui.element("section").classes("panel") as self._place:
            heading("Checkpoints and recoveries")
            self._facts = facts(*FACTS)
            self._said = ui.label().classes("muted small").style("overflow-wrap: anywhere")
            with ui.element("div") as self._losses:
                self._table = table(*LOSS_COLUMNS)
        self._place.set_visibility(False)

    def show(self, survival: Survival) -> None:
        """Draw the present figures."""
        if survival.version == self._shown:
            return
        self._shown = survival.version
        self._place.set_visibility(bool(survival.results or survival.losses))
        self._facts(checkpoint_facts(survival))
        self._said.set_text(summary(survival, self._folder))
        self._losses.set_visibility(bool(survival.losses))
        fill_table(self._table, [loss_row(lost) for lost in reversed(survival.losses)][:_LOSSES])


def checkpoint_facts(survival: Survival) -> Sequence[str]:
    """Return the texts of FACTS; empty if a figure is not known."""
    counts = [f"{survival.results[SAVED]:,} written"]
    for result, said in ((NOT_SAVED, "failed"), (DAMAGED, "damaged")):
        if survival.results[result]:
            counts.append(f"{survival.results[result]:,} {said}")
    return (*_of(survival.newest), ", ".join(counts))


def _of(newest: SavedCheckpoint | None) -> Sequence[str]:
    if newest is None:
        return ("",) * 5
    return (
        f"step {newest.step:,}",
        clock(newest.time)[11:],
        size(newest.n_bytes),
        brief(newest.seconds),
        brief(newest.stall_seconds),
    )


def summary(survival: Survival, folder: Path) -> str:
    """Return where the checkpoints are, and how often the job lost a worker and went on."""
    found = [] if survival.newest is None else [f"The files are in {folder}."]
    if lost := sum(survival.lost.values()):
        times, seconds = counted(survival.recoveries, "time"), span(survival.recovery_seconds)
        steps = counted(survival.steps_again, "step")
        were = "was" if survival.steps_again == 1 else "were"
        again = f"{steps} {were} made again"
        found.append(f"The job lost {counted(lost, 'worker')} and recovered {times}, in {seconds} in all; {again}.")
    return " ".join(found)


def loss_row(lost: LostWorker) -> Sequence[str]:
    """Return the texts of LOSS_COLUMNS."""
    if lost.steps_lost is None or lost.from_step is None:
        again = "not yet"
    else:
        steps = counted(lost.steps_lost, "step")
        same = {None: "", True: ": identical", False: ": NOT identical"}[lost.identical]
        again = f"{steps}, after step {lost.from_step:,}{same}"
    return (
        clock(lost.time)[11:],
        "" if lost.worker is None else str(lost.worker),
        f"{lost.loss}: {lost.cause.partition('; meanwhile ')[0]}",
        *("" if seconds is None else brief(seconds) for seconds in (lost.found_s, lost.replaced_s, lost.first_step_s)),
        again,
    )
