"""Show the progress of uploads: a bar on a terminal, and a line for each file when it is uploaded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import PurePath
from typing import TextIO

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from cluster.cli.texts import one_line
from cluster.client import Upload
from cluster.client.upload import OnUpload, local_files, named_files
from coordinator.job.source_names import is_folder, is_pattern
from coordinator.job.spec import JobSpec
from coordinator.texts import size


def warn_of_missing(spec: JobSpec) -> None:
    """Print a line for each file that is not uploaded. It is not on this machine, so that its name may be wrong, or the
    cluster's hosts have it; or it is a folder or a pattern."""
    for name in sorted(set(named_files(spec)) - set(local_files(spec))):
        several = is_folder(name) or is_pattern(name)
        why = "stands for several files, which are not uploaded" if several else "is not on this machine"
        more = "; or join them into one file, such as a .parquet" if several else ""
        click.echo(f"{one_line(name)} {why}; the cluster's hosts must have it at this path{more}", err=True)


@contextlib.contextmanager
def upload_display(stream: TextIO) -> Iterator[OnUpload]:
    """Show a display for the time of an upload; yields the function that `Client.submit` takes as `on_upload`."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not stream.isatty())
    tasks: dict[str, TaskID] = {}

    def show(upload: Upload) -> None:
        name = one_line(PurePath(upload.path).name)
        if not upload.complete:
            if upload.path not in tasks:
                tasks[upload.path] = bar.add_task(f"uploading {name}", total=upload.total)
            bar.update(tasks[upload.path], completed=upload.done)
            return
        if (task := tasks.pop(upload.path, None)) is not None:
            bar.remove_task(task)
        there = upload.before == upload.total and upload.total > 0
        line = f"{name} is there already" if there else f"uploaded {name} ({size(upload.total)})"
        if bar.disable:
            click.echo(line, err=True)
        else:
            bar.console.print(line, highlight=False, markup=False)

    with bar:
        yield show
