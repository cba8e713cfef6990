"""`pipetrain checkpoints`: list, inspect, compare, verify and export checkpoints, without a cluster."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from cluster.checkpoints.comparing import compared, size_of
from cluster.checkpoints.folder import damaged_files, read_manifest
from cluster.checkpoints.manifest import MANIFEST
from cluster.checkpoints.stored import Stored, folder_of, open_stored
from cluster.checkpoints.tensor_files import tensors_of
from cluster.checkpoints.whole_model import CheckpointParameters, write_whole_model
from cluster.cli.checkpoint_texts import (
    difference_document,
    difference_lines,
    listed,
    listed_lines,
    manifest_document,
    manifest_lines,
    tensor_document,
    tensor_lines,
)
from cluster.cli.options import PathOrUrl
from cluster.cli.texts import harmless
from cluster.run.resuming import find_checkpoint
from coordinator.texts import counted, size
from stages.errors import InvalidData, UserMistake

F = TypeVar("F", bound=Callable[..., Any])
_EXPORT_FORMAT = "pipetrain.model/1"


@click.group()
def checkpoints() -> None:
    """Look at checkpoints, without a cluster.

    RUN is a run directory, CHECKPOINT a folder in its `checkpoints`, FILE any .safetensors file, of torch too. If a
    command needs one checkpoint, RUN stands for the newest one. RUN and CHECKPOINT may be URLs (`checkpoint.to`).
    """


def _place(name: str, metavar: str) -> Callable[[F], F]:
    return click.argument(name, type=PathOrUrl(), metavar=metavar)


def _json(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


@checkpoints.command("list")
@_place("run", "RUN")
@_json
def list_(run: Path, as_json: bool) -> None:
    """List the checkpoints of RUN, newest first."""
    rows = listed(folder_of(run))
    if as_json:
        click.echo(json.dumps(rows))
    elif not rows:
        click.echo(f"{run}: has no checkpoints", err=True)
    for line in [] if as_json or not rows else listed_lines(rows, datetime.now(UTC)):
        click.echo(harmless(line))


@checkpoints.command()
@_place("place", "RUN|CHECKPOINT|FILE")
@click.option("--norms", is_flag=True, help="Read the numbers, too: norm and largest value of each tensor.")
@_json
def inspect(place: Path, norms: bool, as_json: bool) -> None:
    """Show a checkpoint's position, job and tensors.

    Of a FILE it shows the tensors; RUN stands for its newest checkpoint.

    NORM is the square root of the sum of squares, LARGEST the largest absolute value. Numbers that are NaN or infinite
    are counted and left out of both.
    """
    stored = open_stored(place)
    sizes = {name: size_of(one) for name, one in stored.tensors.items()} if norms else {}
    if as_json:
        document = manifest_document(stored)
        document["tensors"] = [tensor_document(one, sizes) for one in stored.tensors.values()]
        click.echo(json.dumps(document))
        return
    for line in (*manifest_lines(stored), "", *tensor_lines(stored, sizes if norms else None)):
        click.echo(harmless(line))


@checkpoints.command()
@_place("first", "A")
@_place("second", "B")
@_json
def diff(first: Path, second: Path, as_json: bool) -> int:
    """Compare the tensors of A and B bit by bit.

    Each is a RUN, a CHECKPOINT or a FILE. Exits with 1 if any bit differs. LARGEST is max |a − b|, RELATIVE is
    ‖a − b‖ / ‖a‖. If one of them is a FILE, the optimizer's vectors of the other one are left out.
    """
    a, b = open_stored(first), open_stored(second)
    only_parameters = (a.manifest is None) != (b.manifest is None)
    if only_parameters:
        a, b = a.without_vectors(), b.without_vectors()
    found = [*compared(a, b)]
    equal = all(one.verdict == "equal" for one in found)
    if as_json:
        document = {"a": str(a.place), "b": str(b.place), "equal": equal, "only_parameters": only_parameters}
        click.echo(json.dumps({**document, "tensors": [difference_document(one) for one in found]}))
    else:
        click.echo(harmless(f"A: {a.place}\nB: {b.place}"))
        for line in difference_lines(found, only_parameters=only_parameters):
            click.echo(harmless(line))
    return 0 if equal else 1


@checkpoints.command()
@_place("place", "RUN|CHECKPOINT|FILE")
@_json
def verify(place: Path, as_json: bool) -> int:
    """Compare files with their checksums.

    These are the files of a checkpoint, or of all checkpoints of RUN. Exits with 1 if a file is damaged. A .safetensors
    FILE has no checksums: only its header is compared with its size.
    """
    rows = [_verified(one) for one in _places(place)]
    if as_json:
        click.echo(json.dumps(rows))
    for row in [] if as_json else rows:
        lines = [f"{row['place']}: {row['what']}"] if row["whole"] else row["damage"]
        for line in lines:
            click.echo(harmless(line))
    if not rows:
        click.echo(f"{place}: has no checkpoints", err=True)
    return 0 if all(row["whole"] for row in rows) else 1


def _places(place: Path) -> list[Path]:
    if place.is_file() or (place / MANIFEST).is_file():
        return [place]
    folder = folder_of(place)
    return [folder.place(step) for step in reversed(folder.steps())]


def _verified(place: Path) -> dict[str, Any]:
    try:
        if place.is_file():
            damage, what = [], f"whole, {counted(len(tensors_of(place)), 'tensor')}; the file has no checksums"
        else:
            manifest = read_manifest(place)
            damage = damaged_files(place, manifest)
            what = f"whole, {counted(len(manifest.files), 'file')}, {size(manifest.n_bytes)}"
    except InvalidData as error:
        damage, what = [*error.problems], ""
    return {"place": str(place), "whole": not damage, "what": "" if damage else what, "damage": damage}


@checkpoints.command()
@_place("place", "RUN|CHECKPOINT")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE.safetensors",
    help="The new file.",
)
@click.option("--optimizer", is_flag=True, help="Write the optimizer's vectors, too.")
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
def export(place: Path, output: Path, optimizer: bool, overwrite: bool) -> None:
    """Write a checkpoint's parameters into one file.

    They are named as in `torch.nn.Sequential`; torch and `model.weights` of a job read the file. The files
    of the checkpoint are compared with their checksums first. A part is in memory at a time.
    """
    if output.exists() and not overwrite:
        raise UserMistake(f"{output}: exists; choose another --output, or let --overwrite replace it")
    found = find_checkpoint(place, lambda text: click.echo(text, err=True))
    stored = open_stored(found.place)
    names = _exported(stored, optimizer=optimizer)
    note = {"format": _EXPORT_FORMAT, "step": str(found.step)}
    write_whole_model(output, CheckpointParameters(found.place, found.manifest, names), note)
    click.echo(f"{output}: {counted(len(names), 'tensor')} of step {found.step}, {size(output.stat().st_size)}")


def _exported(stored: Stored, *, optimizer: bool) -> tuple[str, ...]:
    return (*stored.without_vectors().tensors, *(stored.vectors if optimizer else ()))
