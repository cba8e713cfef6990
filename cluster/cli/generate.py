"""`pipetrain generate`: continue a text with a trained network."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import click
import numpy as np

from cluster.cli.options import NumberRange
from cluster.cli.run_or_job import run_argument, trained_run
from cluster.cli.texts import harmless
from cluster.data.texts.loading import Vocabulary
from cluster.data.texts.written_text import WrittenText
from coordinator.plan.blas_threads import BlasThreads
from coordinator.train.continuation import Continuation
from stages.arrays import Array
from stages.errors import InvalidData

_LINE_BREAK = "\n"
"""The prompt if the user gives none."""


@click.command()
@run_argument
@click.option("--prompt", show_default="a line break", help="The beginning of the text.")
@click.option(
    "--tokens", default=200, show_default=True, type=click.IntRange(1, 100_000), help="How many tokens to write."
)
@click.option(
    "--temperature",
    default=1.0,
    show_default=True,
    type=NumberRange(0.0, 100.0),
    help="Above 1 draws unlikely tokens more often, below 1 less often; 0 always takes the likeliest token.",
)
@click.option("--top-k", metavar="K", type=click.IntRange(1), help="Draw from the K likeliest tokens only.")
@click.option(
    "--top-p",
    metavar="P",
    type=NumberRange(0.0, 1.0, min_open=True),
    help="Draw only from the fewest likeliest tokens whose probabilities add up to at least P.",
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0), help="The same seed writes the same text."
)
@click.option(
    "--low-memory", is_flag=True, help="Hold the weights of one layer at a time and read them again for each token."
)
def generate(
    run: str,
    address: str | None,
    home: Path | None,
    prompt: str | None,
    tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int,
    low_memory: bool,
) -> None:
    """Continue a text, token by token, with a network that was trained on text.

    RUN is a run directory, or the id or the name of a job of the service.
    """
    with trained_run(run, address=address, home=home) as trained, BlasThreads(None):
        vocabulary = trained.vocabulary
        if vocabulary is None:
            raise InvalidData(
                f"{run}: was not trained on text; `pipetrain predict` writes its outputs for rows of numbers"
            )
        parameter: Callable[[str], Array] = trained.parameter if low_memory else cache(trained.parameter)
        row = Continuation(trained.spec.model_spec(), parameter)
        beginning, written = _begin(vocabulary, prompt)
        draw, text = TokenDraw(temperature, top_k, top_p, seed), WrittenText(vocabulary, written)
        click.echo(harmless(beginning), nl=False)
        for _ in range(tokens):
            written.append(draw(row.outputs(written)[: vocabulary.n_known]))
            click.echo(harmless(text.take(written[-1])), nl=False)
        click.echo(harmless(text.rest()))


def _begin(vocabulary: Vocabulary, prompt: str | None) -> tuple[str, list[int]]:
    """Return the beginning of the text, and its tokens: a line break without a `prompt`. Raises InvalidData."""
    if prompt is None and vocabulary.kind == "numbers":
        raise InvalidData("give --prompt, such as '12 7 3': the model was trained on token numbers")
    lacks_it = vocabulary.kind == "characters" and _LINE_BREAK not in vocabulary.characters
    text = _LINE_BREAK if prompt is None else prompt
    written = [] if prompt is None and lacks_it else vocabulary.encode(text, "--prompt").astype(np.int64).tolist()
    if not written and prompt is None:
        raise InvalidData("give --prompt: without it a text begins with a line break, for which the model has no token")
    if not written:
        raise InvalidData("--prompt: is empty; give at least one token")
    return text, written


class TokenDraw:
    """A random draw of tokens from the outputs of a network."""

    def __init__(self, temperature: float, top_k: int | None, top_p: float | None, seed: int) -> None:
        self._temperature, self._top_k, self._top_p = temperature, top_k, top_p
        self._stream = np.random.default_rng(seed)

    def __call__(self, outputs: Array) -> int:
        """Draw a token from the outputs (vocabulary,) of the position before it. Raises InvalidData."""
        if not np.isfinite(outputs).all():
            raise InvalidData("the network's outputs are not finite, so no token can be drawn; its weights are damaged")
        if self._temperature == 0:
            return int(outputs.argmax())
        below = outputs.astype(np.float64) - float(outputs.max())
        with np.errstate(over="ignore"):  # −∞ has the right probability, 0
            probabilities = np.exp(below / self._temperature)
        probabilities /= probabilities.sum()
        likeliest = np.argsort(-probabilities, kind="stable")[: self._top_k]
        if self._top_p is not None:
            likeliest = likeliest[: int((np.cumsum(probabilities[likeliest]) < self._top_p).sum()) + 1]
        share: Any = probabilities[likeliest]
        return int(self._stream.choice(likeliest, p=share / share.sum()))
