"""`pipetrain generate`: text that a trained network writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import numpy as np

from cluster.cli.run_or_job import run_argument, trained_run
from cluster.cli.texts import harmless
from coordinator.plan.blas_threads import BlasThreads
from coordinator.train.inference import infer
from stages.arrays import Array
from stages.errors import InvalidData
from stages.spec import ModelSpec


@click.command()
@run_argument
@click.option("--prompt", default="\n", show_default="a line break", help="What the text begins with.")
@click.option("--tokens", default=200, show_default=True, type=click.IntRange(1, 100_000), help="How many to write.")
@click.option(
    "--temperature",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0.0, 100.0),
    help="Above 1 bolder, below 1 more careful; 0 always takes the likeliest token.",
)
@click.option("--top-k", type=click.IntRange(1), help="TokenDraw from so many of the likeliest tokens only.")
@click.option(
    "--top-p",
    type=click.FloatRange(0.0, 1.0, min_open=True),
    help="TokenDraw from the likeliest tokens that have this probability together.",
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0), help="The same seed writes the same text."
)
@click.option("--low-memory", is_flag=True, help="Hold one layer's weights at a time: read again for each token.")
def generate(
    run: str,
    address: str | None,
    home: Path | None,
    prompt: str,
    tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int,
    low_memory: bool,
) -> None:
    """Write text as a network trained on text would go on.

    RUN is a run directory, or the id or the name of a job of the service.
    """
    with trained_run(run, address=address, home=home) as trained, BlasThreads(None):
        vocabulary = trained.vocabulary
        if vocabulary is None:
            raise InvalidData(f"{run}: was not trained on text; `pipetrain predict` gives outputs for rows of numbers")
        parameter: Callable[[str], Array] = trained.parameter if low_memory else cache(trained.parameter)
        written = vocabulary.encode(prompt, "--prompt").astype(np.int64).tolist()
        if not written:
            raise InvalidData("--prompt: is empty; give at least one token")
        draw = TokenDraw(temperature, top_k, top_p, seed)
        click.echo(harmless(prompt), nl=False)
        shown = len(vocabulary.decode(np.array(written)))
        for _ in _continue(trained.spec.model_spec(), parameter, written, tokens, draw):
            text = vocabulary.decode(np.array(written))
            click.echo(harmless(text[shown:]), nl=False)
            shown = len(text)
        click.echo()


def _continue(
    model: ModelSpec, parameter: Callable[[str], Array], written: list[int], tokens: int, draw: TokenDraw
) -> Iterator[int]:
    """Append tokens to `written`, one at a time."""
    positions = model.input.positions
    for _ in range(tokens):
        seen = written[-positions:]
        window = np.zeros((1, positions), dtype=np.int64)
        window[0, : len(seen)] = seen  # what stands behind is not looked at: positions see those before them
        (outputs,) = infer(model, parameter, window, 1)
        written.append(draw(outputs[:, len(seen) - 1]))
        yield written[-1]


class TokenDraw:
    """Draws tokens from outputs of a network."""

    def __init__(self, temperature: float, top_k: int | None, top_p: float | None, seed: int) -> None:
        self._temperature, self._top_k, self._top_p = temperature, top_k, top_p
        self._stream = np.random.default_rng(seed)

    def __call__(self, outputs: Array) -> int:
        """A token, from the outputs (vocabulary,) at its position."""
        if self._temperature == 0:
            return int(outputs.argmax())
        scaled = outputs.astype(np.float64) / self._temperature
        probabilities = np.exp(scaled - scaled.max())
        probabilities /= probabilities.sum()
        likeliest = np.argsort(-probabilities, kind="stable")[: self._top_k]
        if self._top_p is not None:
            likeliest = likeliest[: int((np.cumsum(probabilities[likeliest]) < self._top_p).sum()) + 1]
        share: Any = probabilities[likeliest]
        return int(self._stream.choice(likeliest, p=share / share.sum()))
