"""Errors of a run in the form that users get."""

from __future__ import annotations

import pytest

from cluster.run.run_errors import with_names
from stages.errors import (
    FailurePlace,
    HostFailed,
    InvalidData,
    InvalidJob,
    InvalidSchedule,
    NonFinite,
    PipetrainError,
    StageFailed,
)

HERE = "/srv/pipetrain/uploads/3f9a.csv"
FILES = {"rows.csv": HERE}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InvalidData(f"{HERE}: no column y"), InvalidData("rows.csv: no column y")),
        (HostFailed(f"{HERE}: no room"), HostFailed("rows.csv: no room")),
        (
            InvalidJob([f"data: {HERE} is empty", "name: too long"]),
            InvalidJob(["data: rows.csv is empty", "name: too long"]),
        ),
        (
            InvalidSchedule(f"{HERE}: 1F0 is missing", f"{HERE} drawn"),
            InvalidSchedule("rows.csv: 1F0 is missing", "rows.csv drawn"),
        ),
        (StageFailed(f"{HERE}: gone", f"File {HERE}"), StageFailed("rows.csv: gone", "File rows.csv")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_uploaded_files_are_called_what_the_user_calls_them(error: PipetrainError, expected: PipetrainError) -> None:
    found = with_names(error, FILES)
    assert found is not error
    assert found.__reduce__() == expected.__reduce__()
    assert found.exit_code == error.exit_code
    assert getattr(found, "problems", None) == getattr(expected, "problems", None)


def test_where_a_job_failed_stays_known() -> None:
    error = NonFinite("loss is NaN")
    error.place = FailurePlace(worker=2, step=7, action="2F0")
    found = with_names(error, FILES)
    assert isinstance(found, NonFinite)
    assert found.place == error.place
