"""Predictions compared with the schedules' formulas, for given times."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest

from coordinator.job.spec import parse_job
from coordinator.plan.blueprint import Blueprint, make_blueprint
from coordinator.plan.estimate import estimate
from coordinator.program.shared_cores import TURN_S, SharedCores
from coordinator.schedules import build
from coordinator.timing.accounts import step_bubble
from coordinator.timing.prediction import Predictor, as_performed, products
from coordinator.train.workers import WorkerPlace, shared_cores
from stages.actions import Kind, Program
from stages.ledger import Account
from stages.orders import StepReport


@dataclass
class _Hand:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def _reports(program: Program, times: dict[int, tuple[float, float, float]], other: float = 0.0) -> list[StepReport]:
    """Return reports of a step whose actions took `times[s]` (F, I, W) each."""
    m, reports = program.n_micro_batches, []
    for worker in range(program.n_workers):
        stages: dict[int, tuple[float, ...]] = {
            s: (m * times[s][0], m * times[s][1], m * times[s][2]) + (0.0,) * 5
            for s in range(program.n_stages)
            if program.placement[s] == worker
        }
        account = Account(0.0, 1.0, stages, (0.0, 0.0, 0.0, other))
        reports.append(
            StepReport(
                step=1, rows=m, loss_total=None, divisor=None, correct=None, squared_norms={}, account=account, sent={},
                saved_bytes=dict.fromkeys(stages, 0),
            )
        )  # fmt: skip
    return reports


@pytest.mark.parametrize(("p", "m"), [(1, 1), (2, 4), (4, 8), (4, 3), (8, 32)])
@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
def test_equal_times_give_the_formula(schedule: str, p: int, m: int) -> None:
    program = build(schedule, n_stages=p, n_micro_batches=m)
    predictor = Predictor(program, clock=_Hand())
    predictor.add(_reports(program, dict.fromkeys(range(p), (1.0, 1.0, 1.0))))
    assert predictor.last is not None
    # (p − 1) × (F + I): the input gradient is sent before the weight gradient is computed
    assert predictor.last.bubble.total == pytest.approx(2 * (p - 1) / (3 * m + 2 * (p - 1)))
    assert sum(predictor.last.bubble.stages) / p == pytest.approx(predictor.last.bubble.total)


def test_what_is_between_two_steps_is_no_bubble_but_makes_the_step_longer() -> None:
    program = build("1f1b", n_stages=2, n_micro_batches=2)
    times = dict.fromkeys(range(2), (1.0, 1.0, 1.0))
    predictor = Predictor(program, clock=_Hand())
    predictor.add(_reports(program, times, other=1.0))
    assert predictor.last is not None
    assert predictor.last.bubble.total == pytest.approx(2.0 / 9.0)  # two idle in eight, and one more for each


def test_a_slow_stage_makes_the_others_idle() -> None:
    program = build("1f1b", n_stages=2, n_micro_batches=8)
    predictor = Predictor(program, clock=_Hand())
    predictor.add(_reports(program, {0: (1.0, 1.0, 1.0), 1: (3.0, 3.0, 3.0)}))
    assert predictor.last is not None
    slow, fast = predictor.last.bubble.stages[1], predictor.last.bubble.stages[0]
    assert fast > 0.6 > 0.1 > slow


@pytest.mark.parametrize("group", [1, 2, 4, 8])
def test_weight_gradients_are_made_where_their_group_is_complete(group: int) -> None:
    program = build("zb-h1", n_stages=4, n_micro_batches=8)
    predictor = Predictor(program, group, _Hand())
    predictor.add(_reports(program, dict.fromkeys(range(4), (1.0, 1.0, 1.0))))
    assert predictor.last is not None
    for lane in predictor.last.spans:
        made = [span.end - span.start for span in lane if span.action.kind is Kind.BACKWARD_WEIGHT]
        assert made == pytest.approx([group if j % group == group - 1 else 0.0 for j in range(8)])
    at_once = (3.0 + 0.0) / 27.0  # ZB-H1's own bubble: a third of (p − 1) × (F + I + W), in 3 m + that
    assert (
        predictor.last.bubble.total == pytest.approx(at_once) if group == 1 else predictor.last.bubble.total > at_once
    )


def test_a_group_that_is_not_full_is_made_with_the_last_micro_batch() -> None:
    program = as_performed(build("gpipe", n_stages=2, n_micro_batches=5))
    assert [len(made) for action, made in products(program, 3).items() if action.stage == 0] == [0, 0, 3, 0, 2]


def test_a_backward_action_is_drawn_as_its_two_halves_as_long_as_measured() -> None:
    program = build("1f1b", n_stages=2, n_micro_batches=2)
    predictor = Predictor(program, clock=_Hand())
    predictor.add(_reports(program, {0: (1.0, 1.0, 3.0), 1: (1.0, 2.0, 1.0)}))
    assert predictor.last is not None
    lane = predictor.last.spans[1]
    assert [str(span.action) for span in lane] == ["1F0", "1I0", "1W0", "1F1", "1I1", "1W1"]
    assert [span.end - span.start for span in lane] == pytest.approx([1, 2, 1, 1, 2, 1])


def test_it_is_made_anew_after_a_while_from_the_steps_since() -> None:
    program, hand = build("gpipe", n_stages=2, n_micro_batches=2), _Hand()
    predictor = Predictor(program, clock=hand)
    predictor.add(_reports(program, dict.fromkeys(range(2), (1.0, 1.0, 1.0))))
    first = predictor.last
    slower = _reports(program, {0: (1.0, 1.0, 1.0), 1: (9.0, 9.0, 9.0)})
    predictor.add(slower)
    assert predictor.last is first
    hand.now = 1.5
    predictor.add(slower)
    assert predictor.last is not first
    assert predictor.last is not None
    assert predictor.last.bubble.stages[0] > 0.7


@pytest.mark.parametrize("one_at_a_time", [True, False])
def test_steps_overlap_unless_each_waits_for_all_workers(one_at_a_time: bool) -> None:
    program = build("zb-h2", n_stages=4, n_micro_batches=8)
    predictor = Predictor(program, clock=_Hand(), one_at_a_time=one_at_a_time)
    predictor.add(_reports(program, dict.fromkeys(range(4), (1.0, 1.0, 1.0))))
    assert predictor.last is not None
    assert predictor.last.bubble.total == pytest.approx(3 / 27 if one_at_a_time else 0.0)


def _on_cpu(reports: list[StepReport], share: float) -> list[StepReport]:
    """Return the reports of workers that had a core for this share of the time in which they computed."""
    cpu = [share * sum(map(sum, report.account.stages.values())) for report in reports]
    return [
        report._replace(account=report.account._replace(cpu=seconds))
        for report, seconds in zip(reports, cpu, strict=True)
    ]


def test_workers_that_share_cores_are_predicted_to_wait_for_them() -> None:
    program = build("1f1b", n_stages=4, n_micro_batches=8)
    shared = SharedCores(host_of=(0,) * 4, cores=(2,), turn=9.0)
    predictor = Predictor(program, clock=_Hand(), shared=shared)
    predictor.add(_on_cpu(_reports(program, dict.fromkeys(range(4), (1.0, 1.0, 1.0))), 1.0))
    assert predictor.last is not None
    assert predictor.last.bubble.total >= 0.5


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_what_workers_lost_to_others_inside_an_action_is_not_counted_twice(share: float) -> None:
    """Each of two workers on one core takes twice as long as it needs; together they keep the core busy."""
    program = build("gpipe", n_stages=2, n_micro_batches=4)
    shared = SharedCores(host_of=(0, 0), cores=(1,), turn=0.01)
    predictor = Predictor(program, clock=_Hand(), shared=shared)
    wall = 1.0 / share
    predictor.add(_on_cpu(_reports(program, dict.fromkeys(range(2), (wall, wall, wall))), share))
    assert predictor.last is not None
    needed = 2 * 4 * 3 * 1.0
    assert max(lane[-1].end for lane in predictor.last.spans) <= needed + 2.0


def test_a_worker_without_time_has_no_bubble() -> None:
    assert step_bubble([Account(1.0, 1.0, {0: (0.0,) * 8}, (0.0,) * 4)]).total == 0.0


# the plan ------------------------------------------------------------------------------------------------------------


def _plan(kinds: str, partition: list[int], width: int = 64, **pipeline: Any) -> Blueprint:
    names: dict[str, Any] = {"L": {"linear": {"units": width, "bias": False}}, "r": "relu", "f": "flatten"}
    document = {
        "model": {"input": [width], "layers": [names[kind] for kind in kinds], "loss": "mse"},
        "data": {"source": "data.npz"},
        "training": {
            "epochs": 1, "batch_size": 256, "micro_batches": 8, "optimizer": {"sgd": {"learning_rate": 0.1}},
        },
        "pipeline": {"stages": len(partition), "partition": partition, **pipeline},
    }  # fmt: skip
    return make_blueprint(parse_job(document), 1437)


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "zb-h1", "zb-h2", "interleaved-1f1b", "zbv", "v-half", "v-min"])
@pytest.mark.parametrize(
    ("kinds", "partition", "group"),
    [
        ("LLLL", [1, 1, 1, 1], 1),
        ("LLLL", [1, 1, 1, 1], 4),
        ("LrrrrLL", [1, 4, 1, 1], 1),
        ("rfLrL", [1, 2, 2], 3),
        ("LLLL", [4], 1),
    ],
)
def test_the_plan_says_what_a_run_with_such_times_would_predict(
    schedule: str, kinds: str, partition: list[int], group: int
) -> None:
    """F, I and W of a stage have no fixed share of its time, and an I is sent before its W is computed."""
    blueprint = _plan(kinds, partition, schedule=schedule, weight_grad_group=group)
    program, width = blueprint.program, 64
    rows = blueprint.micro_batch_rows
    assert len(set(rows)) == 1, "a run knows the mean of a stage's micro-batches"
    first = kinds.index("L")
    times: dict[int, tuple[float, float, float]] = {}
    for s, (a, b) in enumerate(pairwise(blueprint.bounds)):
        f = i = w = 0.0
        for k in range(a, b):
            once = {"L": 2.0 * width**2, "r": 40.0 * width, "f": 0.0}[kinds[k]]
            f += once + (40.0 * width if kinds[k] == "L" else 0.0)
            i += once if k > first else 0.0
            w += once if kinds[k] == "L" else 0.0
        times[s] = (f * rows[0], i * rows[0], w * rows[0])
    predictor = Predictor(program, group, _Hand(), first_trained=blueprint.first_trained)
    predictor.add(_reports(program, times))
    assert predictor.last is not None
    plan = estimate(blueprint, data_bytes=0, validation_rows=0)
    assert plan.bubble == pytest.approx(predictor.last.bubble.total, abs=1e-12)


def test_the_plan_of_four_equal_linear_layers_by_hand() -> None:
    """GPipe; F, W and I take the same, but the first stage has no I."""
    plan = estimate(_plan("LLLL", [1, 1, 1, 1], width=4096, schedule="gpipe"), data_bytes=0, validation_rows=0)
    # F passes 3 stages, 8 more at the last one; then 8 of I and W, the last I then passes two stages, and the first W
    step = 3 + 8 + (8 * 2 - 1) + 2 + 1
    busy = (3 * 24 + 16) / 4
    assert plan.bubble == pytest.approx(1 - busy / step, abs=0.003)


def test_workers_share_the_cores_of_their_node() -> None:
    places = [
        WorkerPlace(w, "h", node, 10 + w, cores) for w, (node, cores) in enumerate([("a", 2), ("b", 8), ("a", 2)])
    ]
    found = shared_cores(places, threads=2)
    assert found == SharedCores(host_of=(0, 1, 0), cores=(2, 8), threads=2, turn=TURN_S)
    assert found.is_tight  # two workers with two threads each on two cores
    assert shared_cores([places[0]._replace(cores=0)], 1) is None, "cores that nobody knows"
    assert shared_cores([], 1) is None, "threads of this process"
