"""The lecture's two toy networks, computed three ways: by the pipeline, by formulae derived by hand, by differences.

    for row in lecture_rows(SCALAR):
        print(row.symbol, row.formula, row.pipeline, row.by_hand, row.finite_difference, row.agrees)

Notation and networks are those of S. Prince, Understanding Deep Learning (MIT Press 2023), chapter 7: f are
pre-activations, h hidden units, β biases, ω and Ω weights, a[·] the activation, ℓ the loss.
"""

from __future__ import annotations

from coordinator.lecture.networks import MATRIX, NETWORKS, SCALAR, LectureNetwork
from coordinator.lecture.rows import LectureRow, lecture_rows

__all__ = ["MATRIX", "NETWORKS", "SCALAR", "LectureNetwork", "LectureRow", "lecture_rows"]
