"""`pipetrain evaluate`: loss and accuracy of a trained run on any data."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cluster.data.sources import load_arrays, load_data
from cluster.run.run_dir import open_run
from coordinator.plan.blas_threads import BlasThreads
from coordinator.train.inference import infer
from stages.loss import evaluate_loss, loss_count


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "--data", "source", metavar="SOURCE", help="A built-in name, a file or a URL; the run's validation rows by default."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def evaluate(run_dir: Path, source: str | None, as_json: bool) -> None:
    """Loss and, for classifiers, accuracy of the trained network over all rows."""
    run = open_run(run_dir)
    spec, model = run.spec, run.spec.model_spec()
    data = load_data(spec).validation if source is None else load_arrays(spec, source, run.columns)
    rows = min(spec.training.evaluate_batch_size, len(data))
    total, correct = 0.0, 0
    with BlasThreads(None):
        for i, f in enumerate(infer(model, run.parameter, data.x, rows)):
            y = data.y[i * rows : i * rows + f.shape[1]]
            result = evaluate_loss(model.loss, f, y if y.ndim == 1 else y.T, 1)
            total, correct = total + result.total, correct + (result.correct or 0)
    loss = total / loss_count(model.loss, len(data), model.features()[-1])
    found: dict[str, object] = {"rows": len(data), "loss": loss}
    if model.loss == "cross_entropy":
        found["accuracy"] = correct / len(data)
    if as_json:
        click.echo(json.dumps(found))
        return
    accuracy = f", accuracy {correct / len(data):.2%}" if "accuracy" in found else ""
    click.echo(f"{len(data)} rows: loss {loss:.6g}{accuracy}")
