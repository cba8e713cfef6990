"""`pipetrain predict`: write the outputs of a trained network for new inputs."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from cluster.cli.run_or_job import run_argument, trained_run
from cluster.data.sources import load_inputs
from coordinator.job.source_names import is_text
from coordinator.plan.blas_threads import BlasThreads
from coordinator.train.inference import infer
from stages.errors import UserMistake


@click.command()
@run_argument
@click.option(
    "--input",
    "source",
    required=True,
    metavar="X.npz",
    help="The inputs: an .npz with an array x, or a .csv or .parquet with the input columns.",
)
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="Y.npz",
    help="The .npz file to write.",
)
def predict(run: str, address: str | None, home: Path | None, source: str, output: Path) -> None:
    """Write the outputs for every row of the input as array `y` (rows, outputs); classifiers also `label` (rows,).

    If the network has outputs for each position, the shapes are (rows, positions, outputs) and (rows, positions).

    The input of a network on text is an array x of token numbers (rows, positions).

    RUN is a run directory, or the id or the name of a job of the service.
    """
    if output.suffix != ".npz":
        raise UserMistake(f"--output: {output} must end in .npz")
    with trained_run(run, address=address, home=home) as trained, BlasThreads(None):
        spec = trained.spec
        if is_text(source, spec.data.block):
            raise UserMistake(f"--input: {source} is text; give token numbers in an .npz, or use `pipetrain generate`")
        x = load_inputs(spec, source, trained.preprocessing)
        chunks = infer(spec.model_spec(), trained.parameter, x, spec.training.evaluate_batch_size)
        arrays = {"y": np.concatenate([chunk.T for chunk in chunks])}
        if spec.model_spec().network.output.positions:
            arrays["y"] = arrays["y"].reshape(len(x), -1, arrays["y"].shape[1])
    if spec.model_spec().loss_function.takes_labels:
        arrays["label"] = arrays["y"].argmax(axis=-1)
    try:
        with output.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise UserMistake(f"--output: {output} cannot be written: {error.strerror}") from None
    click.echo(f"{output}: y {arrays['y'].shape}, {arrays['y'].dtype}")
