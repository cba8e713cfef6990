"""`pipetrain cluster`: show the service and its machines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from cluster.cli.service_options import json_option, service_command

if TYPE_CHECKING:
    from cluster.client import Client


@click.command()
@json_option("Print the service, its nodes, and the jobs that run or wait, as one JSON object.")
@service_command
def cluster(client: Client, as_json: bool) -> None:
    """Show the job service: its version, its health, its nodes, and the jobs that run or wait.

    CPUS and MEMORY show how much of a node jobs have reserved, whether they use it or not, and how much it has.
    """
    state = client.cluster()
    if as_json:
        click.echo(json.dumps(state.as_dict()))
        return
    from cluster.cli.output import console
    from cluster.cli.overview import overview

    screen = console()
    screen.print(overview(client.address, state, width=screen.width))
