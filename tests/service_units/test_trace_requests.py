"""Requests for traces, as files in the run directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.service.traces import _put
from coordinator.run_files import TRACE_REQUEST
from tests.small_disk import fill, small_disk


def test_a_request_that_the_disk_has_no_room_for_leaves_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        run = disk / "run"
        run.mkdir()
        filler = fill(disk)
        with pytest.raises(OSError, match="No space left on device"):
            _put(run, {"steps": 3, "id": "a"})
        assert list(run.iterdir()) == []
        filler.unlink()
        assert _put(run, {"steps": 3, "id": "b"})
        assert [file.name for file in run.iterdir()] == [TRACE_REQUEST]
