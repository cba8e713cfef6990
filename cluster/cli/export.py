"""`pipetrain export`: write a trained network in another program's layout."""

from __future__ import annotations

from pathlib import Path

import click

from cluster.cli.import_ import sizes_text
from cluster.cli.run_or_job import run_argument, trained_run
from cluster.models.gpt2_export import export_gpt2


@click.command()
@click.argument("layout", type=click.Choice(["gpt2"]), metavar="gpt2")
@run_argument
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The new folder to write."
)
def export(layout: str, run: str, address: str | None, home: Path | None, output: Path) -> None:
    """Write the trained network of RUN into the folder DIR, in Hugging Face's GPT-2 layout.

    RUN is a run directory, or the id or the name of a job of the service. If the layout cannot hold the network, the
    command names the first layer that differs.
    """
    with trained_run(run, address=address, home=home) as trained:
        sizes, zeros = export_gpt2(trained, output)
    click.echo(f"{output}: {sizes_text(sizes)}")
    if zeros:
        click.echo(f"{zeros} biases that the network does not have are written as zeros")
