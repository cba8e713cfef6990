"""Access of other users of the machine, while the service is up."""

from __future__ import annotations

from pathlib import Path

from cluster.actors.host_processes import command_line
from cluster.service.ray_head import RayHead
from tests.other_user import needs_nobody, what_nobody_can_do
from tests.service.running import Service


@needs_nobody
def test_another_user_can_do_nothing_to_home_and_to_the_files_of_ray(service: Service) -> None:
    head = RayHead.left_by_another(service.home)
    assert head is not None
    folder = Path(head.folder)
    assert list(folder.rglob("raylet")), "a socket of Ray that others must not reach"
    assert what_nobody_can_do(folder) == []
    assert what_nobody_can_do(service.folder) == []


def test_no_port_that_ray_will_show_its_token_to_is_known_before_ray_listens(service: Service) -> None:
    """Another user who reads the port in Ray's command line could listen there first."""
    head = RayHead.left_by_another(service.home)
    assert head is not None
    given = command_line(head.session).split(b"\0")
    assert given[given.index(b"--port") + 1] == b"0"
    assert head.address.rpartition(":")[2].encode() not in given
