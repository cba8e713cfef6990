"""The charts' data: curves, shares of time, formats of numbers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cluster.dashboard import models
from cluster.dashboard.charts import Line, Lines, smoothed
from cluster.dashboard.facts import rows_csv, rows_model
from cluster.dashboard.live import Live
from cluster.dashboard.pages.curves import range_of
from cluster.dashboard.pages.job_parts import lanes, seconds_cells, worker_bubbles, worker_names, worker_shares
from cluster.service.job_stats import JobStats
from coordinator.texts import number
from coordinator.timing.accounts import recent_bubble
from stages.ledger import STAGE_KINDS, WORKER_KINDS


def test_the_table_of_seconds_sums_each_column() -> None:
    stages = [
        models.StageAccount(
            stage=stage,
            worker=stage % 2,
            seconds=dict.fromkeys(STAGE_KINDS, stage + 1.0),
            bubble=0,
            bubble_predicted=None,
        )
        for stage in range(4)
    ]
    workers = [
        models.WorkerAccount(worker=worker, wall_seconds=40 + 16 * worker, seconds=dict.fromkeys(WORKER_KINDS, 2.0))
        for worker in range(2)
    ]
    accounts = models.AttemptAccounts(attempt=1, step=0, ended=0.0, stages=stages, workers=workers, links=[])
    rows, seconds = lanes(accounts)
    assert (rows[1], rows[2]) == ("worker 0, stage 2", "worker 0, no stage")
    cells = seconds_cells([*STAGE_KINDS, *WORKER_KINDS], seconds)
    for column in range(1, len(rows) + 1):
        *parts, total = [float(row[column]) for row in cells]
        assert sum(parts) == total
    assert cells[-1] == ("all", "8.00", "24.00", "8.00", "16.00", "32.00", "8.00")
    assert [sum(map(float, cells[-1][1:4])), sum(map(float, cells[-1][4:]))] == [40, 56]


def test_of_workers_with_several_stages_shares_sum_to_all_of_the_time_and_bubbles_to_the_jobs() -> None:
    """A stage's bar was its share of its worker's time: no stage was above 34 %, beside a bubble of 83 %."""
    stages = [
        models.StageAccount(
            stage=stage,
            worker=stage % 2,
            seconds=dict.fromkeys(STAGE_KINDS, stage + 1.0),
            bubble=0.2 + 0.1 * stage,
            bubble_predicted=0.1,
        )
        for stage in range(4)
    ]
    workers = [
        models.WorkerAccount(worker=worker, wall_seconds=40 + 16 * worker, seconds=dict.fromkeys(WORKER_KINDS, 2.0))
        for worker in range(2)
    ]
    accounts = models.AttemptAccounts(attempt=1, step=0, ended=0.0, stages=stages, workers=workers, links=[])
    assert worker_names(accounts) == ["worker 0: stages 0, 2", "worker 1: stages 1, 3"]
    shares = worker_shares(accounts, [*STAGE_KINDS, *WORKER_KINDS])
    for worker in range(2):
        assert sum(row[worker] for row in shares.values()) == pytest.approx(1, abs=1e-3)
    bubbles = worker_bubbles(accounts)
    assert bubbles["measured"] == pytest.approx([0.6, 0.8])
    assert bubbles["predicted"] == pytest.approx([0.2, 0.2])
    job = recent_bubble({"bubble": [stage.bubble for stage in stages], "wall_us": [1, 1]})
    assert sum(bubbles["measured"]) / 2 == pytest.approx(job)


# numbers and curves -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "–"),
        (0, "0"),
        (0.02482, "0.02482"),
        (0.00012349, "0.0001235"),
        (0.0000123, "1.23e-5"),
        (999.96, "1000"),
        (1234.6, "1,235"),
        (123456, "123,456"),
        (1e6, "1e6"),
        (12000000000000000, "1.2e16"),
        (-2.5e-7, "-2.5e-7"),
        (float("inf"), "inf"),
    ],
)
def test_numbers_have_one_form(value: float | None, said: str) -> None:
    assert number(value) == said


def test_smoothed_points_are_means_that_do_not_begin_at_zero_and_keep_gaps() -> None:
    points = [(1, 4.0), (2, None), (3, 4.0), (4, 0.0)]
    assert smoothed(points, 1) is points
    first, gap, same, lower = [value for _, value in smoothed(points, 10)]
    assert (first, gap, same) == (4.0, None, 4.0)
    assert lower is not None
    assert 2 < lower < 4


@pytest.mark.parametrize(
    ("first", "last", "found"),
    [
        ("", "", None),
        ("5", "9", (5, 9)),
        ("9", "5", None),
        ("5", "", (5, 2**53)),
        ("x", "9", None),
        ("-3", "9", (1, 9)),
    ],
)
def test_a_range_of_steps_that_makes_no_sense_is_all_of_them(first: str, last: str, found: Any) -> None:
    assert range_of(first, last) == found


def test_a_range_has_more_of_its_points_and_the_csv_has_a_column_a_series() -> None:
    stats = JobStats(job="job1", name="a", attempt=1)
    row = {
        "kind": "step",
        "epoch": 1,
        "samples": 10,
        "grad_norm": 2.0,
        "learning_rate": 0.5,
        "seconds": 0.1,
        "bubble": 0,
    }
    for step in range(1, 901):
        memory = {"memory_most": 300, "memory_mean": 200} if step % 100 == 0 else {}
        stats.take_row({**row, **memory, "step": step, "loss": 1.0 / step})
    stats.take_row({"kind": "eval", "step": 450, "epoch": 1, "loss": 0.5, "samples": 5})
    live = Live(stats)
    assert len(live.points("loss")) <= 301
    assert [step for step, _ in live.points("loss", (401, 600))] == list(range(401, 601))
    assert [step for step, _ in live.points("samples_per_second", (401, 600))] == list(range(401, 601))
    assert live.points("memory_most") == [(100 * i, 300) for i in range(1, 10)]
    assert live.points("memory_mean")[0] == (100, 200)
    assert live.points("learning_rate")[-1] == (900, 0.5)
    text = rows_csv(rows_model(stats, ["loss", "validation_loss"]), 449, 451).splitlines()
    assert text == ["step,loss,validation_loss", f"449,{1 / 449!r},", f"450,{1 / 450!r},0.5", f"451,{1 / 451!r},"]


def test_a_line_without_points_is_not_in_the_legend(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job without validation once had a legend for it."""

    def echart(options: dict[str, Any], renderer: str) -> Any:
        chart = SimpleNamespace(options=options, sent=[], update=lambda: None)
        chart.classes = chart.props = lambda text: chart
        chart.run_chart_method = lambda name, options: chart.sent.append(options)
        return chart

    monkeypatch.setattr("cluster.dashboard.charts.ui", SimpleNamespace(echart=echart))
    lines = Lines("Loss", (Line("training", "c1"), Line("validation", "c2")))
    chart: Any = lines.chart
    lines.show([[(1, 0.5)], []])
    assert chart.options["legend"]["data"] == ["training"]
    lines.show([[(1, 0.5), (2, 0.4)], [(2, 0.6)]])
    assert chart.sent[-1]["legend"] == {"data": ["training", "validation"]}
