"""`pipetrain predict`: write the answers of a trained network for new rows."""

from __future__ import annotations

from pathlib import Path

import click

from cluster.cli.run_or_job import run_argument, trained_run
from cluster.cli.texts import one_line
from cluster.data.questions import load_questions
from cluster.run.answer_files import STDOUT, require_output
from cluster.run.predicting import write_arrays, write_table
from coordinator.job.source_names import is_text
from coordinator.plan.blas_threads import BlasThreads
from coordinator.texts import counted, some
from stages.errors import UserMistake


@click.command()
@run_argument
@click.option(
    "--input",
    "source",
    required=True,
    metavar="ROWS",
    help="A file with the input columns, in any order and among others; or an .npz with an array x.",
)
@click.option(
    "--output",
    required=True,
    metavar="ANSWERS",
    help="The .csv, .parquet, .feather, .jsonl or .npz file to write; - for CSV on the standard output.",
)
def predict(run: str, address: str | None, home: Path | None, source: str, output: str) -> None:
    """Write an answer for every row of the input, in the same order: its key, `prediction`, and for classes
    `probability_CLASS`. Numbers are in the target's unit; several targets have a column `prediction_TARGET` each.

    The key is the column that the training file has as key or index, else the row's number, `row`, from 1. An .npz file
    has the outputs y (rows, outputs), for classes also `label` (rows,) and `classes`. If the network has outputs for
    each position, only .npz can hold them, as (rows, positions, outputs); the input of a network on text is an array x
    of token numbers (rows, positions).

    RUN is a run directory, or the id or the name of a job of the service.
    """
    require_output(output)
    with trained_run(run, address=address, home=home) as trained, BlasThreads(None):
        if is_text(source, trained.spec.data.block):
            raise UserMistake(f"--input: {source} is text; give token numbers in an .npz, or use `pipetrain generate`")
        asked = load_questions(trained.spec, source, trained.preprocessing)
        for line in asked.said:
            click.echo(one_line(line), err=True)
        if output.lower().endswith(".npz"):
            y = write_arrays(trained, asked, output)["y"]
            click.echo(f"{output}: y {y.shape}, {y.dtype}")
            return
        names = write_table(trained, asked, output)
    if output != STDOUT:
        click.echo(f"{output}: {counted(asked.n_rows, 'row')}: {one_line(some(names, 6))}")
