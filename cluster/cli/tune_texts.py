"""The output of `pipetrain tune`: the table of what was tried, the lines to use, and all of it as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from coordinator.job.spec import JobSpec
from coordinator.job.yaml_text import write_yaml
from coordinator.plan.candidates import Candidate
from coordinator.plan.contest import Trial
from coordinator.plan.settings import CHANGES_BITS, PipelineSettings, changed_entries
from coordinator.texts import number, size

_NOT_MEASURED, _REFUSED = 5, 5
"""So many lines of settings that were only predicted, and of refused ones."""


def table_of_tried(
    name: str, trials: Sequence[Trial], ranked: Sequence[Candidate], refused: Sequence[Candidate]
) -> Table:
    """Return a table of the measured trials, the fastest first, then of the best predicted ones, then of refused
    ones."""
    table = Table(title=f"{name}: a step in ms")
    for heading in ("settings", "predicted", "measured", "median", "mean", "steps", "memory a worker", "note"):
        table.add_column(heading, justify="left" if heading in ("settings", "note") else "right")
    for trial in in_order(trials):
        median, mean = (
            (None, None) if not trial.steps else (statistics.median(trial.steps), statistics.fmean(trial.steps))
        )
        own = "the job's own" + (", too many workers here" if trial.is_reference else "")
        notes = [*([own] if trial.is_own else []), *([trial.dropped] if trial.dropped else [])]
        table.add_row(
            *_begin(trial.candidate),
            *map(_ms, (trial.seconds, median, mean)),
            f"{len(trial.steps):,}",
            size(trial.candidate.memory, "up"),
            "; ".join(notes),
        )
    tried = {trial.candidate.settings for trial in trials}
    others = [candidate for candidate in ranked if candidate.settings not in tried]
    for candidate in others[:_NOT_MEASURED]:
        _add_predicted(table, candidate, "predicted only")
    for candidate in refused[:_REFUSED]:
        _add_predicted(table, candidate, f"refused: {candidate.refusal}")
    if len(refused) > _REFUSED:
        table.add_row(f"{len(refused) - _REFUSED:,} more", *["–"] * 6, "refused")
    return table


def _add_predicted(table: Table, candidate: Candidate, note: str) -> None:
    table.add_row(*_begin(candidate), *["–"] * 4, size(candidate.memory, "up"), note)


def _begin(candidate: Candidate) -> tuple[str, str]:
    return str(candidate.settings), _ms(candidate.predicted.seconds)


def _ms(seconds: float | None) -> str:
    return number(None if seconds is None else 1000 * seconds)


def in_order(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials: those of the last heat first, in each heat the fastest first, at last those that failed."""
    return sorted(trials, key=lambda e: (bool(e.dropped), -e.heat, e.seconds or float("inf")))


def lines_to_use(spec: JobSpec, settings: PipelineSettings) -> list[str]:
    """Return the lines of the job file and the options with which the job has these settings, and what they change."""
    changed = changed_entries(spec, settings)
    if not changed:
        return ["the job has these settings already"]
    sections: dict[str, dict[str, Any]] = {}
    for path, value in settings.entries().items():
        section, _, name = path.partition(".")
        if value is not None and (path in changed or value not in ("auto", "none", 1)):
            sections.setdefault(section, {})[name] = value
    found = ["", *write_yaml(sections).rstrip().splitlines(), "", f"or: {_flags(spec, changed)}"]
    if rounding := [path for path in CHANGES_BITS if path in changed]:
        found.append(
            f"{' and '.join(rounding)} {'change' if len(rounding) > 1 else 'changes'} the rounding of the weights, as "
            "another order of adding does; all other settings change no bit"
        )
    return found


def _flags(spec: JobSpec, changed: Mapping[str, Any]) -> str:
    """Return the options of `train` that set these entries; `pipeline: auto` is replaced as a whole, as it has none."""
    flags = [f"--set {path}={_flag(value)}" for path, value in changed.items()]
    if spec.pipeline.is_auto:
        inside = [
            f"{path.removeprefix('pipeline.')}: {value}"
            for path, value in changed.items()
            if path.startswith("pipeline.") and value is not None
        ]
        others = [flag for flag in flags if not flag.startswith("--set pipeline.")]
        flags = [f"--set 'pipeline={{{', '.join(inside)}}}'", *others]
    return " ".join(flags)


def _flag(value: object) -> str:
    if value is None:
        return "null"
    return f"'[{', '.join(map(str, value))}]'" if isinstance(value, list) else str(value)


def as_document(
    spec: JobSpec,
    chosen: Candidate,
    why: str,
    trials: Sequence[Trial],
    ranked: Sequence[Candidate],
    refused: Sequence[Candidate],
    n_predicted: int,
) -> dict[str, Any]:
    """Return everything as plain values."""
    changed = changed_entries(spec, chosen.settings)
    return {
        "chosen": chosen.settings.entries(),
        "changed": changed,
        "changes_bits": [path for path in CHANGES_BITS if path in changed],
        "why": why,
        "predicted": n_predicted,
        "measured": [
            {
                **_document(trial.candidate),
                "step_seconds": trial.seconds,
                "median_seconds": statistics.median(trial.steps) if trial.steps else None,
                "mean_seconds": statistics.fmean(trial.steps) if trial.steps else None,
                "turns": trial.turns,
                "steps": len(trial.steps),
                "heat": trial.heat,
                "own": trial.is_own,
                "dropped": trial.dropped or None,
            }
            for trial in in_order(trials)
        ],
        "ranked": [_document(candidate) for candidate in ranked],
        "refused": [{**_document(candidate), "why": candidate.refusal} for candidate in refused],
    }


def _document(candidate: Candidate) -> dict[str, Any]:
    return {
        "settings": str(candidate.settings),
        "entries": candidate.settings.entries(),
        "workers": candidate.settings.workers,
        "predicted_seconds": candidate.predicted.seconds,
        "predicted_bubble": candidate.predicted.bubble.total,
        "memory": candidate.memory,
    }
