"""Figures as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.texts import counted, exact, number, per_second, share, size, some, span


@pytest.mark.parametrize(
    ("n", "noun", "text"),
    [
        (0, "job", "0 jobs"),
        (1, "stage", "1 stage"),
        (2, "micro-batch", "2 micro-batches"),
        (46000, "step", "46,000 steps"),
    ],
)
def test_counted(n: int, noun: str, text: str) -> None:
    assert counted(n, noun) == text


def test_a_long_list_of_names_is_cut() -> None:
    assert [some(names) for names in (["a"], ["a", "b", "c"], ["a", "b", "c", "d"])] == [
        "a",
        "a, b, c",
        "a, b, c and 1 more",
    ]


def test_a_slow_network_has_a_speed() -> None:
    speeds = (12345.6, 81.4, 9.96, 1.04, 0.0316, 0.0)
    assert [per_second(speed) for speed in speeds] == ["12,346", "81", "10", "1", "0.032", "0"]


def test_what_is_not_known_is_a_dash_or_what_the_place_asks_for() -> None:
    assert (number(None), share(None), size(None)) == ("–", "–", "–")
    assert (number(None, ""), share(None, 2, ""), size(None, absent="")) == ("", "", "")
    assert (number(0.123456), share(0.3125), share(0.98607, 2)) == ("0.1235", "31.2%", "98.61%")


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (160 * 2**20, "160.0 MiB"),
        (2**30, "1.0 GiB"),
        (1500 * 2**30, "1,500.0 GiB"),
    ],
)
def test_size(n: int, text: str) -> None:
    assert size(n) == text


def test_a_need_that_is_a_byte_too_large_looks_so() -> None:
    assert size(16 * 2**30 + 1, "up") == "16.1 GiB"
    assert size(16 * 2**30 + 1, "down") == size(16 * 2**30, "up") == "16 GiB"


@given(st.integers(0, 2**50))
def test_a_size_rounded_down_is_at_most_the_size_and_up_at_least(n: int) -> None:
    units = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

    def read(text: str) -> float:
        value, unit = text.split()
        return float(value.replace(",", "")) * units[unit]

    assert read(size(n, "down")) <= n * (1 + 1e-12)
    assert read(size(n, "up")) >= n * (1 - 1e-12)


@pytest.mark.parametrize(
    ("seconds", "text", "compact"),
    [
        (-1, "0.0 s", "0.0s"),
        (0.42, "0.4 s", "0.4s"),
        (42, "42 s", "42s"),
        (119, "119 s", "119s"),
        (300, "5 min", "5m"),
        (3.2 * 3600, "3.2 h", "3h"),
        (12 * 86400, "12 d", "12d"),
    ],
)
def test_span(seconds: float, text: str, compact: str) -> None:
    assert span(seconds) == text
    assert span(seconds, compact=True) == compact


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), (2.5, "2.5"), (333333333.5, "333,333,333.5"), (1e9 + 1, "1,000,000,001"), (1 / 3, "0.3333")],
)
def test_what_is_exact_has_all_its_digits(value: float, text: str) -> None:
    assert exact(value) == text
