"""Perplexity and bits per byte: their values, and the jobs for which they have a meaning."""

from __future__ import annotations

import math

import pytest

from coordinator.train.text_measure import TextMeasure, text_measure
from tests.coordinator.test_deep_training import _job


def test_a_network_that_guesses_among_bytes_has_the_perplexity_256_and_8_bits_per_byte() -> None:
    perplexity, bits = TextMeasure(n_bytes=100).of(100 * math.log(256), 100)
    assert perplexity == pytest.approx(256)
    assert bits == pytest.approx(8)


def test_bits_per_byte_does_not_depend_on_what_a_token_is() -> None:
    """The same text and the same total loss, as 100 tokens or 25 of four bytes each."""
    many, few = TextMeasure(100).of(80.0, 100), TextMeasure(100).of(80.0, 25)
    assert many[1] == few[1]
    assert many[1] == pytest.approx(80 / math.log(2) / 100)
    assert many[0] == pytest.approx(math.exp(0.8))
    assert few[0] == pytest.approx(math.exp(3.2))


def test_what_is_not_known_or_too_large_is_none() -> None:
    perplexity, bits = TextMeasure(None).of(10.0, 10)
    assert perplexity == pytest.approx(math.e)
    assert bits is None
    assert TextMeasure(10).of(1e6, 10)[0] is None


def test_only_a_text_and_the_logarithm_of_a_probability_are_measured() -> None:
    spec = _job()
    assert text_measure(spec, "a.txt", 9) == TextMeasure(9)
    assert text_measure(spec, "digits", 9) is None
    smoothed = spec.replace(model__loss={"cross_entropy": {"label_smoothing": 0.1}})
    assert text_measure(smoothed, "a.txt", 9) is None
    ignoring = spec.replace(model__loss={"cross_entropy": {"ignore_index": 0}})
    assert text_measure(ignoring, "a.txt", 9) == TextMeasure(None)
