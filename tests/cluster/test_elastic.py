"""A run whose nodes come and go: on real Ray nodes of this host, of which Ray's process is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.train.story import CAUGHT_UP, LAID_OUT, LOST, RECOVERED, STORY
from tests.cluster import raylets_run
from tests.cluster.test_resume import LOCAL, results
from tests.faults.test_recovery import events, train

pytestmark = pytest.mark.timeout(420)


@pytest.mark.parametrize("stages", ["auto", pytest.param("3", marks=pytest.mark.slow)])
def test_a_run_moves_to_another_node_then_shrinks_then_grows_and_its_weights_show_no_trace(
    tmp_path: Path, stages: str
) -> None:
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_AUTH_TOKEN", None)
    command = [sys.executable, "-m", "tests.cluster.raylets_run", str(tmp_path / "run"), stages]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=380,
        env=environment,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    story = events(tmp_path / "run", *STORY)
    assert [event["event"] for event in story] == [
        *(LOST, RECOVERED, CAUGHT_UP),
        *(LOST, LAID_OUT, RECOVERED, CAUGHT_UP),
        LAID_OUT,
    ], done.stdout
    first, recovered, _, second, shrunk, _, _, grown = story
    assert (first["loss"], second["loss"]) == ("node lost", "node lost")
    assert len(recovered["workers"]) == 1, "the others stay"
    (started,) = events(tmp_path / "run", "started")
    places = {at["worker"]: at["node"] for at in started["workers"]}
    assert recovered["workers"][0]["node"] not in places.values(), "on the node that was free"
    n_stages = [3, 2, 3] if stages == "auto" else [3, 3, 3]
    assert (shrunk["before"]["workers"], shrunk["workers"], grown["workers"]) == (3, 2, 3)
    assert [shrunk["before"]["stages"], shrunk["stages"], grown["stages"]] == n_stages
    assert shrunk["why"].startswith("node ")
    assert shrunk["why"].endswith(" left")
    assert f"laid out anew: 3 workers → 2, {'3 stages → 2' if stages == 'auto' else '3 stages'}, because" in done.stdout
    assert all(event["identical"] for event in story if event["event"] == CAUGHT_UP)
    spec = raylets_run.job(stages if stages == "auto" else int(stages))
    train(tmp_path / "whole", spec, LOCAL)
    assert results(tmp_path / "run") == results(tmp_path / "whole")
    assert json.loads((tmp_path / "run" / "timeline.json").read_text())["memory"][-1]["worker"] == 2
