"""The table of figures, and all that follows from one of its rows."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from cluster.client.figures import figures_from_wire
from cluster.dashboard.facts import rows_model
from cluster.service import metric_families
from cluster.service.job_stats import JobStats
from cluster.service.stats_message import stats_message
from cluster.trackers.tracker import point_of
from cluster.wire import pipetrain_pb2 as pb
from cluster.wire.convert import row_from_wire, row_to_wire
from coordinator.timing.durations import STEP_MEAN, STEP_MEDIAN
from coordinator.train.rows import EVAL_FIGURES, SERIES, STEP_FIGURES, EvalRow, StepRow

ALL = (*STEP_FIGURES, *EVAL_FIGURES)
STEP = StepRow(
    step=3, epoch=1, samples=64, loss=0.5, seconds=0.25, grad_norm=2.0, learning_rate=0.1, bubble=0.3, accuracy=0.75,
    bubble_predicted=0.2, memory_most=300, memory_mean=200,
)  # fmt: skip
EVALUATION = EvalRow(step=3, epoch=1, loss=0.4, accuracy=0.875, samples=16, perplexity=1.5, bits_per_byte=0.75)
FOUND = {
    **{one.shown.series: one.value(STEP) for one in STEP_FIGURES if one.shown.series},
    **{one.shown.series: one.value(EVALUATION) for one in EVAL_FIGURES if one.shown.series},
}
"""Every series of these rows."""


def _stats() -> JobStats:
    stats = JobStats(job="a", name="a", attempt=1)
    stats.take_row(STEP.as_dict())
    stats.take_row(EVALUATION.as_dict())
    return stats


def test_every_field_of_a_row_is_in_the_table_with_what_it_means() -> None:
    for figures, row in ((STEP_FIGURES, StepRow), (EVAL_FIGURES, EvalRow)):
        assert {one.name for one in fields(row)} <= {one.name for one in figures}
    assert all(one.shown.help for one in ALL)
    for names in ([one.shown.series for one in ALL], [one.shown.tracker for one in ALL]):
        given = [name for name in names if name]
        assert len(given) == len(set(given))


def test_each_series_reaches_the_service_its_clients_and_the_interface() -> None:
    assert set(FOUND) == set(SERIES)
    stats = _stats()
    figures = figures_from_wire(pb.JobStats.FromString(stats_message(stats).SerializeToString()))
    times = {name: figures.latest.pop(name) for name in (STEP_MEAN, STEP_MEDIAN)}
    assert times == pytest.approx(dict.fromkeys(times, STEP.seconds), rel=0.003)
    assert figures.latest == FOUND
    assert {name: getattr(figures, name) for name in FOUND if hasattr(figures, name)} == {
        name: value for name, value in FOUND.items() if hasattr(figures, name)
    }
    assert {name: points.values[-1] for name, points in rows_model(stats).series.items()} == FOUND


def test_each_tracker_name_reaches_trackers() -> None:
    for row, figures in ((STEP, STEP_FIGURES), (EVALUATION, EVAL_FIGURES)):
        values = {one.shown.tracker: one.value(row) for one in figures if one.shown.tracker}
        assert point_of(row, 1.0).values == values


def test_each_metric_has_a_family() -> None:
    with_metric = {one.shown.series for one in ALL if one.shown.metric}
    assert with_metric == set(metric_families.FIGURES)
    assert all(with_metric), "a metric shows the last value of a series"
    assert {family.name for family, _ in metric_families.FIGURES.values()} == {
        one.shown.metric.name for one in ALL if one.shown.metric
    }


def test_a_figure_that_is_newer_than_the_protocol_travels_by_name() -> None:
    line = {**STEP.as_dict(), "clipped": 0.125}
    message = pb.MetricRow.FromString(row_to_wire(line, 1).SerializeToString())
    assert message.step.figures["clipped"] == 0.125
    assert row_from_wire(message) == STEP, "a client that does not know the figure reads the others"


@pytest.mark.parametrize("value", ["a", None, [1.0]])
def test_what_is_no_number_is_no_figure(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        row_to_wire({**STEP.as_dict(), "clipped": value}, 1)


def test_a_figure_that_a_step_does_not_have_keeps_its_last_value() -> None:
    stats = _stats()
    line = StepRow(
        step=4, epoch=1, samples=8, loss=0.25, seconds=0.1, grad_norm=1.0, learning_rate=0.1, bubble=0.1, accuracy=0.5
    )
    stats.take_row(json.loads(json.dumps(line.as_dict())))
    assert stats.latest["bubble_predicted"] == 0.2
    mean = (64 * 0.5 + 8 * 0.25) / 72
    assert stats.latest["loss"] == pytest.approx(mean), "the mean over the epoch so far"
    assert stats.series["loss"].points == [(3, 0.5), (4, 0.25)], "points are each step's own"
    assert stats.series["bubble_predicted"].points == [(3, 0.2)]


def test_the_sdk_describes_its_rows() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "reference" / "job.md").read_text(encoding="utf-8")
    assert [one.name for one in STEP_FIGURES if f"| `{one.name}` |" not in page] == []
