"""`pipetrain evaluate`: show the loss and accuracy of a trained network on any data."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cluster.cli.run_or_job import run_argument, trained_run
from cluster.data.checks import require_counted
from cluster.data.sources import load_arrays, load_data
from cluster.data.text import target_bytes, text_rows
from cluster.run.saved_model import FinishedRun
from coordinator.plan.blas_threads import BlasThreads
from coordinator.texts import text_measures
from coordinator.train.inference import infer
from coordinator.train.text_measure import text_measure
from stages.data import Dataset
from stages.losses import mean


@click.command()
@run_argument
@click.option(
    "--data",
    "source",
    metavar="SOURCE",
    help="The name of a built-in data set, a file or a URL; the run's validation rows by default.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def evaluate(run: str, address: str | None, home: Path | None, source: str | None, as_json: bool) -> None:
    """Show the loss of a trained network over all rows; for classifiers also its accuracy, for networks on text also
    the perplexity and the bits per byte.

    RUN is a run directory, or the id or the name of a job of the service.
    """
    with trained_run(run, address=address, home=home) as trained:
        found = _evaluate(trained, source)
    if as_json:
        click.echo(json.dumps(found))
        return
    parts = [
        f"{found['rows']} rows: loss {found['loss']:.6g}",
        *text_measures(found.get("perplexity"), found.get("bits_per_byte")),
        *([f"accuracy {found['accuracy']:.2%}"] if "accuracy" in found else []),
    ]
    click.echo(", ".join(parts))


def _evaluate(run: FinishedRun, source: str | None) -> dict[str, float]:
    """Return the number of rows and their loss; for classifiers also their accuracy, from 0 to 1, and for text the
    perplexity and the bits per byte."""
    spec, model = run.spec, run.spec.model_spec()
    data = load_data(spec).validation if source is None else _other(run, source)
    rows, output = min(spec.training.evaluate_batch_size, len(data)), model.network.output
    loss, total, correct, counted = model.loss_function, 0.0, 0, 0
    with BlasThreads(None):
        for i, f in enumerate(infer(model, run.parameter, data.x, rows)):
            y = data.targets(slice(i * rows, (i + 1) * rows))
            counted += loss.n_counted(y)
            result = loss.evaluate(f, y, 1)
            total, correct = total + result.total, correct + (result.correct or 0)
    count = loss.count(counted, output.features)
    found: dict[str, float] = {"rows": len(data), "loss": mean(total, count)}
    if loss.classifies:
        found["accuracy"] = mean(correct, count)
    measure = text_measure(spec, source or spec.data.source, target_bytes(data, run.vocabulary))
    if measure is not None:
        named = zip(("perplexity", "bits_per_byte"), measure.of(total, count), strict=True)
        found |= {name: value for name, value in named if value is not None}
    return found


def _other(run: FinishedRun, source: str) -> Dataset:
    """Return the rows of another source, read with the run's preprocessing or vocabulary. Raises InvalidData."""
    if run.vocabulary is not None:
        rows = text_rows(run.spec, source, run.vocabulary)
    else:
        rows = load_arrays(run.spec, source, run.preprocessing)
    require_counted(rows.y, run.spec.model_spec(), source, "evaluation", "give other data")
    return rows
