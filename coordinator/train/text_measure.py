"""How well a network predicts a text: perplexity, and bits per byte, which do not depend on the kind of tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass

from coordinator.job.source_names import is_text
from coordinator.job.spec import JobSpec

_MOST = 700.0  # e to a larger power overflows float64


@dataclass(frozen=True, slots=True)
class TextMeasure:
    """The measures of a text. Its predicted tokens stand for `n_bytes` bytes; None if that is not known."""

    n_bytes: int | None = None

    def of(self, loss_total: float, tokens: int) -> tuple[float | None, float | None]:
        """Return (perplexity, bits per byte) of a loss in nats, summed over `tokens` tokens. None if a value is not
        known, or too large for a float64."""
        loss = loss_total / max(1, tokens)
        perplexity = math.exp(loss) if loss < _MOST else None
        return perplexity, loss_total / math.log(2) / self.n_bytes if self.n_bytes else None


def text_measure(spec: JobSpec, source: str, n_bytes: int | None) -> TextMeasure | None:
    """Return the measure of a job on text; None for other jobs, and if the loss is not the logarithm of a
    probability."""
    loss = spec.model_spec().loss_function
    if not is_text(source, spec.data.block) or not loss.is_log_likelihood:
        return None
    return TextMeasure(n_bytes if loss.ignore_index is None else None)
