"""The client's conversion of messages and its handling of received files, without a service."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.client.fetch import receive_files
from cluster.client.messages import JobEvent
from cluster.wire import pipetrain_pb2 as pb
from cluster.wire.convert import iso, moment, row_from_wire, row_to_wire, state_name, state_number
from coordinator.queue.job_states import STATE_NAMES
from coordinator.train.rows import EvalRow, Row, StepRow
from stages.errors import Refused, UserMistake

COUNT = st.integers(0, 2**53)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
SHARE = st.none() | st.floats(0, 1)
STEPS = st.builds(
    StepRow,
    step=COUNT,
    epoch=COUNT,
    samples=COUNT,
    loss=NUMBER,
    seconds=NUMBER,
    grad_norm=NUMBER,
    learning_rate=NUMBER,
    bubble=NUMBER,
    accuracy=SHARE,
    attempt=st.integers(1, 100),
)
EVALUATIONS = st.builds(
    EvalRow, step=COUNT, epoch=COUNT, loss=NUMBER, accuracy=SHARE, samples=COUNT, attempt=st.integers(1, 100)
)


# messages ----------------------------------------------------------------------------------------------------------


@given(STEPS | EVALUATIONS)
def test_rows_come_back_from_the_wire_as_they_were(row: Row) -> None:
    line = json.loads(json.dumps(row.as_dict()))
    message = pb.MetricRow.FromString(row_to_wire(line, row.attempt).SerializeToString())
    assert row_from_wire(message) == row


def test_a_line_that_is_no_row_is_refused() -> None:
    row = EvalRow(step=1, epoch=1, loss=1.0, accuracy=None, samples=5)
    assert "attempt" not in row.as_dict()
    with pytest.raises(ValueError, match="of kind step or eval"):
        row_to_wire({**row.as_dict(), "kind": "other"}, 1)
    with pytest.raises(ValueError, match="neither a step nor an evaluation"):
        row_from_wire(pb.MetricRow(attempt=1))


def test_states_have_the_names_of_the_state_machine() -> None:
    assert [state_name(state_number(name)) for name in STATE_NAMES] == list(STATE_NAMES)
    assert set(pb.State.keys()) == {"STATE_UNSPECIFIED", *STATE_NAMES}
    assert state_number("running") == pb.RUNNING
    assert state_name(99) == "STATE_99"
    with pytest.raises(ValueError, match="must be a state: QUEUED"):
        state_number("DONE")


def test_times_are_iso_8601_in_utc() -> None:
    assert iso(moment(1_772_368_200.25)) == "2026-03-01T12:30:00.250Z"
    assert iso(moment(0)) == "1970-01-01T00:00:00.000Z"
    assert iso(None) is None


@pytest.mark.parametrize(
    ("details", "found"),
    [("", {}), ('{"a": 1}', {"a": 1}), ("broken", {"text": "broken"}), ("[1]", {"value": [1]})],
)
def test_an_event_keeps_details_of_any_kind(details: str, found: dict[str, Any]) -> None:
    event = JobEvent.from_wire(pb.Event(seq=1, time=0.5, kind="started", attempt=1, text="began", details=details))
    assert event.details == found
    assert event.as_dict()["time"] == "1970-01-01T00:00:00.500Z"


# files that come ---------------------------------------------------------------------------------------------------


def _chunks(path: str, content: bytes, at: int = 1000) -> list[pb.FetchChunk]:
    parts = [content[i : i + at] for i in range(0, len(content), at)] or [b""]
    chunks = [pb.FetchChunk(data=part) for part in parts]
    chunks[0].path, chunks[0].size = path, len(content)
    chunks[-1].sha256 = sha256(content).hexdigest()
    return chunks


def test_files_are_put_in_place_whole(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    (tmp_path / "out").mkdir()
    (folder / "job.yaml").write_text("old")
    content = {"job.yaml": b"name: x\n", "model.safetensors": bytes(range(256)) * 20, "a/b/empty": b""}
    paths = receive_files((chunk for item in content.items() for chunk in _chunks(*item)), folder)
    assert paths == [folder / name for name in content]
    assert {name: (folder / name).read_bytes() for name in content} == content
    assert sum(path.is_file() for path in folder.rglob("*")) == 3


@pytest.mark.parametrize(
    "path", ["../evil", "/etc/evil", "a/../../evil", "..", ".", "a\\..\\evil", "C:evil", "nul\0", "link/evil"]
)
def test_no_file_leaves_the_folder(tmp_path: Path, path: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(Refused):
        receive_files([*_chunks("good", b"1"), *_chunks(path, b"evil")], folder)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["link", "out"]


def _wrong_size(chunks: list[pb.FetchChunk]) -> list[pb.FetchChunk]:
    chunks[0].size += 1
    return chunks


def _wrong_content(chunks: list[pb.FetchChunk]) -> list[pb.FetchChunk]:
    chunks[1].data = b"x" + chunks[1].data[1:]
    return chunks


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_wrong_size, "of 3,001 bytes arrived; fetch it again"),
        (_wrong_content, "content does not match its checksum"),
        (lambda chunks: chunks[:-1], "its end did not arrive"),
        (lambda chunks: [*chunks[:-1], *_chunks("next", b"")], "its end did not arrive"),
        (lambda chunks: chunks[1:], "without the name of its file"),
    ],
)
def test_what_was_spoiled_on_the_way_is_not_put_in_place(
    tmp_path: Path, spoil: Callable[[list[pb.FetchChunk]], list[pb.FetchChunk]], said: str
) -> None:
    with pytest.raises(Refused, match=said):
        receive_files(spoil(_chunks("model", b"\0" * 3000)), tmp_path / "out")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_folder_that_cannot_be_written_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserMistake, match="file"):
        receive_files(_chunks("a", b""), tmp_path / "file")
