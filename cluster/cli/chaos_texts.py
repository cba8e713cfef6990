"""Campaigns and reports of soaks as lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING

from cluster.cli.figure_tables import aligned
from coordinator.chaos.campaign import Planned
from coordinator.chaos.report import Outcome
from coordinator.texts import counted, span

if TYPE_CHECKING:
    from cluster.chaos.soak import SoakReport


def campaign_lines(plan: Sequence[Planned]) -> Iterator[str]:
    """Yield the table of a campaign."""
    rows = [(fault.id, fault.what, str(worker), str(fault.step), str(fault.action)) for worker, fault in plan]
    yield from aligned(("#", "fault", "worker", "step", "before"), rows, left=(1, 4))


def report_lines(report: SoakReport) -> Iterator[str]:
    """Yield a row for each fault, a row for each kind, and the verdict."""
    rows = [
        (
            *(one.number, one.kind, str(one.worker), str(one.step), str(one.point)),
            _seconds(one.found_s) if not one.with_another else "with another",
            _seconds(one.replaced_s),
            "" if one.steps_lost is None else str(one.steps_lost),
            "" if one.identical is None else ("yes" if one.identical else "NO"),
            one.detail if one.struck else "did not strike",
        )
        for one in report.faults
    ]
    heading = ("#", "fault", "worker", "step", "before", "found after", "replaced after", "lost", "identical", "")
    yield from (line.rstrip() for line in aligned(heading, rows, left=(1, 4, 9)))
    yield ""
    yield from _by_kind(report.faults)
    yield ""
    struck = sum(one.struck for one in report.faults)
    lost = sum(one.replaced_s is not None for one in report.faults)
    yield (
        f"{counted(struck, 'fault')} of {len(report.faults)} struck, {counted(lost, 'worker')} replaced; "
        f"{counted(report.steps, 'step')} in {span(report.disturbed_s)}, undisturbed {span(report.undisturbed_s)}"
    )
    for cause in report.other_losses:
        yield f"a worker was lost without a fault: {cause}"
    yield from report.differences
    yield from report.left
    if report.ok:
        yield "identical: weights, optimizer's vectors and rows, bit by bit; nothing is left behind"
    else:
        yield "NOT identical" if not report.identical else "identical, but NOT everything is gone"
    yield f"report: {report.folder / 'soak.json'}"


def _by_kind(faults: Sequence[Outcome]) -> Iterator[str]:
    """Yield the table of what came of each kind: medians and the longest times."""
    rows = []
    for kind in dict.fromkeys(one.kind for one in faults):
        own = [one for one in faults if one.kind == kind]
        rows.append(
            (
                *(kind, str(len(own)), str(sum(one.replaced_s is not None for one in own))),
                *_spread([one.found_s for one in own]),
                *_spread([one.replaced_s for one in own]),
                str(sum(one.steps_lost or 0 for one in own)),
            )
        )
    yield from aligned(("fault", "", "replaced", "found after", "at most", "replaced after", "at most", "lost"), rows)


def _spread(values: Sequence[float | None]) -> tuple[str, str]:
    known = [value for value in values if value is not None]
    return (_seconds(median(known)), _seconds(max(known))) if known else ("", "")


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} s"
