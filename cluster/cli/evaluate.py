"""`pipetrain evaluate`: show how good a trained network is on any data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from cluster.cli.figure_tables import figure_lines
from cluster.cli.run_or_job import run_argument, trained_run
from cluster.cli.texts import one_line
from cluster.data.checks import require_counted
from cluster.data.sources import load_arrays, load_data
from cluster.data.texts.loading import target_bytes, text_rows
from cluster.run.evaluation import figures
from cluster.run.saved_model import FinishedRun
from coordinator.plan.blas_threads import BlasThreads
from coordinator.texts import text_measures
from coordinator.train.inference import infer
from coordinator.train.text_measure import text_measure
from stages.data import Dataset
from stages.errors import InvalidData
from stages.losses import mean
from stages.quality import Quality, added, quality


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
    """Show how good a trained network is on the run's validation rows, or on other data.

    For classes: loss, accuracy, a line for each class and the confusion matrix. For numbers: loss, and R² and errors in
    the target's unit. For text: loss, accuracy, perplexity and bits per byte.

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
    for line in figure_lines(found):
        click.echo(line)


def _evaluate(run: FinishedRun, source: str | None) -> dict[str, Any]:
    """Return the number of rows and their loss; for classifiers also their accuracy, from 0 to 1, for text the
    perplexity and the bits per byte, and for all other networks the result of `figures`."""
    spec, model = run.spec, run.spec.model_spec()
    data = _own(run) if source is None else _other(run, source)
    rows, output = min(spec.training.evaluate_batch_size, len(data)), model.network.output
    loss, total, correct, counted = model.loss_function, 0.0, 0, 0
    judged: Quality | None = None
    with BlasThreads(None):
        for i, f in enumerate(infer(model, run.parameter, data.x, rows)):
            y = data.targets(slice(i * rows, (i + 1) * rows))
            counted += loss.n_counted(y)
            judged = None if output.positions else added(judged, quality(loss, f, y))
            result = loss.evaluate(f, y, 1)
            total, correct = total + result.total, correct + (result.correct or 0)
    count = loss.count(counted, output.features)
    found: dict[str, Any] = {"rows": len(data), "loss": mean(total, count)}
    if loss.classifies:
        found["accuracy"] = mean(correct, count)
    measure = text_measure(spec, source or spec.data.source, target_bytes(data, run.vocabulary))
    if measure is not None:
        named = zip(("perplexity", "bits_per_byte"), measure.of(total, count), strict=True)
        found |= {name: value for name, value in named if value is not None}
    if judged is not None:
        found |= figures(judged, run.preprocessing)
    return found


def _own(run: FinishedRun) -> Dataset:
    """Return the run's validation rows. Raises InvalidData if there are none, or if the file has changed so that they
    are no longer known."""
    data = load_data(run.spec)
    source = run.spec.data.source
    if not len(data.validation):
        raise InvalidData(f"{source}: the run has no validation rows (data.validation is 0); give rows by --data")
    kept, now = run.preprocessing, data.preprocessing
    if kept is not None and now is not None and run.has_rules and kept.document() != now.document():
        raise InvalidData(
            f"{source}: has changed since the training, so its validation rows are not those of the run; give rows by "
            "--data"
        )
    return data.validation


def _other(run: FinishedRun, source: str) -> Dataset:
    """Return the rows of another source, read with the run's preprocessing or vocabulary. Raises InvalidData."""
    if run.vocabulary is not None:
        rows = text_rows(run.spec, source, run.vocabulary)
    else:
        rows = load_arrays(run.spec, source, run.preprocessing, notify=_notify)
    require_counted(rows.y, run.spec.model_spec(), source, "evaluation", "give other data")
    return rows


def _notify(line: str) -> None:
    click.echo(one_line(line), err=True)
