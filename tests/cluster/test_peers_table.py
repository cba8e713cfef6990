"""Which contestants of `benchmarks.peers` count, and what is compared with what."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from benchmarks import CONFIGS, GPT_CONFIGS
from benchmarks.peers import Contestant, Peer, Wanted, comparisons, compete, finalists, line_of, ours_for

_OWN = 8


class _Steps:
    """Takes the given seconds a step, of which every tenth is ten times as long."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def measure(self, steps: int, warm_up: int = 1) -> list[float]:
        return [self._seconds * (10 if step % 10 == 9 else 1) for step in range(steps)]


def _contestant(side: str, name: str, m: int, seconds: float) -> Contestant:
    def start() -> AbstractContextManager[Peer]:
        return nullcontext(_Steps(seconds))

    return Contestant(side=side, name=name, micro_batches=m, start=start)


def _everyone() -> list[Contestant]:
    return [
        _contestant("ours", "a", 8, 0.010),
        _contestant("ours", "b", 8, 0.012),
        _contestant("ours", "c", 8, 0.020),
        _contestant("ours", "d", 4, 0.008),
        _contestant("torch", "e", 8, 0.030),
        _contestant("torch", "f", 8, 0.040),
        _contestant("torch", "g", 2, 0.016),
        _contestant("torch", "h", 4, 0.050),
        _contestant("alone", "one", 1, 0.009),
    ]


def test_the_fastest_at_its_own_and_at_other_micro_batches_stay_and_the_one_process() -> None:
    everyone = _everyone()
    for contestant in everyone:
        contestant.try_out()
    assert [contestant.name for contestant in finalists(everyone, _OWN)] == ["a", "b", "d", "e", "f", "g", "h", "one"]


def test_three_comparisons_of_one_run_by_medians_and_by_means() -> None:
    finished = compete(_everyone(), _OWN, rounds=2)
    found = comparisons(finished, _OWN, Wanted(5.0, 1.9, 1.1))
    assert [(one.ours.name, one.other.name, one.wanted) for one in found] == [
        ("a", "e", 5.0),
        ("d", "g", 1.9),
        ("d", "one", 1.1),
    ]
    assert [round(one.ratio, 9) for one in found] == [3.0, 2.0, 1.125]
    first = found[0]
    assert first.ours.mean > 1.8 * first.ours.median
    assert line_of(CONFIGS[3], first).startswith(
        "| 64, 8, 256 | 8 micro-batches each | 25,600 (a) | 8,533 (e) | 3.00 ("
    )


def test_a_gpt_is_also_trained_with_two_stages_a_worker() -> None:
    own = [name for name, _ in ours_for(GPT_CONFIGS[0], own=True)]
    assert {"1f1b", "zb-h2", "zbv", "v-half", "dualpipev"} <= set(own)
    few = [name for name, _ in ours_for(replace(GPT_CONFIGS[0], micro_batches=2), own=False)]
    assert few == ["zb-h2", "zbv"], "dualpipev needs two micro-batches a worker"
    assert ours_for(CONFIGS[3], own=True)[0] == ("1f1b", 1)
