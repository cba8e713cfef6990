"""How well a network knows a text: perplexity, and bits per byte, which do not depend on what its tokens are."""

from __future__ import annotations

import math
from dataclasses import dataclass

from coordinator.job.source_names import is_text
from coordinator.job.spec import JobSpec

_MOST = 700.0  # e to a larger power is no float64


@dataclass(frozen=True, slots=True)
class TextMeasure:
    """What is measured of a text whose tokens, those that are to be predicted, stand for `n_bytes` bytes; None if that
    is not known."""

    n_bytes: int | None = None

    def of(self, loss_total: float, tokens: int) -> tuple[float | None, float | None]:
        """(perplexity, bits per byte) of a summed loss in nats over so many tokens. None for what is not known, or too
        large for a number."""
        loss = loss_total / max(1, tokens)
        perplexity = math.exp(loss) if loss < _MOST else None
        return perplexity, loss_total / math.log(2) / self.n_bytes if self.n_bytes else None


def text_measure(spec: JobSpec, source: str, n_bytes: int | None) -> TextMeasure | None:
    """The measure of a job on text; None for another, and if its loss is no logarithm of a probability."""
    loss = spec.model_spec().loss_function
    if not is_text(source) or not loss.is_log_likelihood:
        return None
    return TextMeasure(n_bytes if loss.ignore_index is None else None)
