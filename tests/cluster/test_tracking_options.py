"""A job's choice of trackers: `--track` and `tracking`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cluster.trackers import require_trackers, tracking_of
from coordinator.job.spec import parse_job
from stages.errors import InvalidJob, UserMistake
from tests.cluster.tracked_runs import tracked
from tests.jobs import digits_job


def test_track_options_are_entries_of_the_job() -> None:
    assert tracking_of([], {}) == {}
    assert tracking_of(["tensorboard"], {}) == {"tensorboard": True}
    assert tracking_of(["tensorboard:logs", "mlflow:http://h:5000"], {}) == {
        "tensorboard": "logs",
        "mlflow": "http://h:5000",
    }
    assert tracking_of(["mlflow"], {"MLFLOW_TRACKING_URI": "http://h:5000"}) == {"mlflow": "http://h:5000"}


@pytest.mark.parametrize(
    ("tracks", "says"),
    [
        (["wandb"], "--track wandb: must be tensorboard, tensorboard:DIR, mlflow or mlflow:URI"),
        (["tensorboard:"], "--track tensorboard:: must be"),
        (["tensorboard", "tensorboard:x"], "--track tensorboard:x: tensorboard is named twice"),
        (["mlflow"], "--track mlflow: to which server or database?"),
    ],
)
def test_a_wrong_track_option_says_what_is_right(tracks: list[str], says: str) -> None:
    with pytest.raises(UserMistake, match=f"^{says.replace('?', '.')}"):
        tracking_of(tracks, {})


def test_tracking_stands_in_the_job_only_where_it_is_on_and_comes_back() -> None:
    assert "tracking" not in digits_job().document()
    assert "tracking" not in tracked(tensorboard=False, mlflow=None).document()
    spec = tracked(tensorboard=True, mlflow="http://h:5000")
    assert spec.document()["tracking"] == {"tensorboard": True, "mlflow": "http://h:5000"}
    assert parse_job(spec.document()) == spec


@pytest.mark.parametrize(
    ("tracking", "says"),
    [
        ({"tensorboard": 3}, "tracking.tensorboard: got 3, must be true .*, false, or a folder"),
        ({"mlflow": "./runs"}, "tracking.mlflow: got './runs', .* sqlite:///mlflow.db"),
        ({"mlflow": "runs"}, "tracking.mlflow: got 'runs', must be the URI of a server or a database"),
        ({"mlfow": "x"}, "tracking.mlfow: got 'x', unknown key; did you mean mlflow?"),
    ],
)
def test_a_wrong_tracking_section_says_what_is_right(tracking: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidJob, match=says):
        tracked(**tracking)


def test_a_missing_package_is_one_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    require_trackers(digits_job())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    require_trackers(digits_job())
    with pytest.raises(UserMistake) as caught:
        require_trackers(tracked(tensorboard=True, mlflow="http://h:5000"))
    first, second = str(caught.value).splitlines()
    assert first.endswith("; pip install 'pipetrain[tensorboard]'")
    assert second.endswith("; pip install 'pipetrain[mlflow]'")


def test_no_tracker_is_loaded_where_none_is_wanted() -> None:
    code = "import sys, cluster.trackers; print(sorted({'tensorboard', 'mlflow', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "tensorboard" not in done.stdout
    assert "mlflow" not in done.stdout
