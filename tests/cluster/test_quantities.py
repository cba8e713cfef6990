"""Sizes and durations on the command line."""

from __future__ import annotations

import click
import pytest

from cluster.cli.quantities import Duration, Size

DAY_S = 86_400


@pytest.mark.parametrize(
    ("text", "n_bytes"), [("16GiB", 2**34), ("1", 1), ("500MB", 500_000_000), ("1.5 KiB", 1536), ("2TiB", 2**41)]
)
def test_sizes(text: str, n_bytes: int) -> None:
    assert Size().convert(text, None, None) == n_bytes


@pytest.mark.parametrize(("text", "seconds"), [("7d", 7 * DAY_S), ("12h", DAY_S / 2), ("90s", 90), ("1.5m", 90)])
def test_durations(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("kind", [Size(), Duration()])
@pytest.mark.parametrize(
    "text", ["", "0", "-1", "inf", "nan", "1e3", "7 weeks", "16 gib", "9999999999TiB", "9" * 17 + "w"]
)
def test_what_is_neither_is_one_line(kind: Size | Duration, text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"^got '.*', must be a "):
        kind.convert(text, None, None)
