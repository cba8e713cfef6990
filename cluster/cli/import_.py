"""`pipetrain import`: make a job and its weights from a model in another program's layout."""

from __future__ import annotations

from pathlib import Path

import click

from cluster.models.gpt2_import import import_gpt2
from cluster.models.gpt2_network import Gpt2
from coordinator import run_files
from coordinator.texts import counted


@click.command("import")
@click.argument("layout", type=click.Choice(["gpt2"]), metavar="gpt2")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="OUT",
    help="The new folder to write; runs/NAME by default, with the name of DIR.",
)
@click.option(
    "--block",
    metavar="N",
    type=click.IntRange(1),
    help="Keep only the first N positions, so that training computes less.",
)
def import_(layout: str, folder: Path, output: Path | None, block: int | None) -> None:
    """Make a job and its weights from the model in the folder DIR, which has Hugging Face's GPT-2 layout.

    OUT is then like the run directory of a finished job: `generate`, `evaluate`, `predict` and `export` accept it, and
    training with its job.yaml begins with these weights.
    """
    into = output or Path("runs") / (folder.absolute().name or "gpt2")
    made = import_gpt2(folder, into, block=block)
    click.echo(f"{into}: {sizes_text(made.sizes)}; {made.parameters:,} parameters")
    for line in made.ignored:
        click.echo(line)
    source = "FILE.txt" if (into / run_files.TOKENIZER).exists() else "TOKENS.bin"
    click.echo(f"train it on: pipetrain train {into / run_files.JOB} --set data.source={source}")


def sizes_text(sizes: Gpt2) -> str:
    """Return sizes as text: `3 blocks of 32 features with 4 heads, 24 positions, 97 tokens`."""
    return (
        f"{counted(sizes.blocks, 'block')} of {sizes.features:,} features with {counted(sizes.heads, 'head')}, "
        f"{sizes.positions:,} positions, {sizes.vocabulary:,} tokens"
    )
