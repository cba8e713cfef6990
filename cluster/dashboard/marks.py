"""What is marked over a job's charts: checkpoints, faults on request, lost workers, and steps that were made again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cluster.service.survival import Survival

_MOST_CHECKPOINTS = 12


@dataclass(frozen=True, slots=True)
class Marks:
    """Steps to mark: of checkpoints; of losses and of faults on request, each with a text; and (first, last) of steps
    that were made again.

    If there are many checkpoints, only the newest one and those from which the job has gone on are marked.
    """

    checkpoints: tuple[int, ...] = ()
    losses: tuple[tuple[int, str], ...] = ()
    again: tuple[tuple[int, int], ...] = ()
    faults: tuple[tuple[int, str], ...] = ()

    def within(self, first: int, last: int) -> Marks:
        """Return the marks from step `first` to `last`."""
        checkpoints = [step for step in self.checkpoints if first <= step <= last]
        if len(checkpoints) > _MOST_CHECKPOINTS:
            gone_on = {begin for begin, _ in self.again}
            checkpoints = [step for step in checkpoints if step in gone_on or step == self.checkpoints[-1]]
        return Marks(
            tuple(checkpoints),
            tuple(loss for loss in self.losses if first <= loss[0] <= last),
            tuple((max(a, first), min(b, last)) for a, b in self.again if max(a, first) <= min(b, last)),
            tuple(fault for fault in self.faults if first <= fault[0] <= last),
        )

    def options(self) -> dict[str, Any]:
        """Return them as options of the first series of a chart."""
        saved = {"color": "var(--c3)", "type": "dotted", "width": 1, "opacity": 0.7}
        lost = {"color": "var(--bad)", "type": "solid", "width": 1.2}
        hidden = {"show": False}
        text = {"show": True, "formatter": "{b}", "position": "insideEndTop", "color": "var(--bad)", "fontSize": 10}
        lines = [{"xAxis": step, "lineStyle": saved, "label": hidden} for step in self.checkpoints]
        lines += [{"xAxis": step, "name": said, "lineStyle": lost, "label": text} for step, said in self.losses]
        injected = {"color": "var(--c4)", "type": "dashed", "width": 1.2}
        why = {**text, "position": "insideMiddleTop", "color": "var(--c4)"}
        lines += [{"xAxis": step, "name": said, "lineStyle": injected, "label": why} for step, said in self.faults]
        areas = [[{"xAxis": first}, {"xAxis": last}] for first, last in self.again]
        quiet = {"silent": True, "animation": False}
        return {
            "markLine": {**quiet, "symbol": "none", "data": lines},
            "markArea": {**quiet, "itemStyle": {"color": "var(--bad)", "opacity": 0.12}, "data": areas},
        }


NO_MARKS = Marks()


def marks_of(survival: Survival) -> Marks:
    """Return the marks of a job."""
    return Marks(
        tuple(saved.step for saved in survival.checkpoints),
        tuple(
            (lost.step, "a link lost" if lost.worker is None else f"worker {lost.worker} lost")
            for lost in survival.losses
        ),
        tuple(
            (lost.from_step, lost.from_step + lost.steps_lost)
            for lost in survival.losses
            if lost.from_step is not None and lost.steps_lost
        ),
        tuple((fault.step, f"{fault.kind} of worker {fault.worker}") for fault in survival.faults),
    )
