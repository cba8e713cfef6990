"""Random bytes as jobs: a file, gRPC and HTTP return problems, a line each, or accept the job."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.dashboard.submission import read_job_text
from cluster.service.api import _read_spec
from coordinator.job.spec import JobSpec, load_job
from coordinator.job.yaml_text import read_yaml
from stages.errors import UserMistake
from tests.jobs import EXAMPLES

JOBS = [path.read_bytes() for path in sorted(EXAMPLES.rglob("*.yaml"))]
_WITHIN_S = 1.0  # seconds of CPU time
_yaml = st.text("[]{}:,-&*!#|>%@`\"'~<? \t\n\r\0\x1bab01.e_é\u2028\ufeff", max_size=12).map(
    lambda text: text.encode("utf-8", "surrogatepass")
)
_bombs = st.sampled_from(
    [
        b"&a [*a]",
        b"&a {<<: *a}",
        b"<<: [*b, *b]",
        b"!!python/object/apply:os.system [x]",
        b"!!binary aGk=",
        b"2026-01-01",
        b"1" * 5000,
        b"1e999",
        b".nan",
        b"0x10",
        b"\xed\xa0\x80",
        b"\\ud800",
        b'"\\ud800"',
        b"? [a, b] : c",
        b"- " * 100,
        b"[" * 2000,
        b"--- \n...\n---",
        b"%YAML 9.9\n---",
        b"x: &b [" + b"1," * 1000 + b"]\ny: [" + b"*b," * 1000 + b"]",
    ]
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Draw an example with a few parts replaced, doubled, moved or cut off."""
    text = draw(st.sampled_from(JOBS))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 40)))
        part = draw(st.binary(max_size=6) | _yaml | _bombs | st.just(text[start:end] * 2))
        text = text[:start] + part + text[end:]
    return text


def _answers(door: Callable[[], JobSpec]) -> None:
    """Check that it is accepted, or refused with lines, in a short time. Any other exception fails the test."""
    began = time.process_time()
    try:
        spec = door()
    except UserMistake as error:
        lines = error.problems
    else:
        assert json.loads(json.dumps(spec.document())) == spec.document()
        return
    assert time.process_time() - began < _WITHIN_S
    assert lines
    assert all(len(line.splitlines()) == 1 for line in lines), lines
    "\n".join(lines).encode()  # it can be sent and printed


@settings(deadline=None, max_examples=200)
@given(content=mutated())
def test_random_bytes_are_a_job_or_lines_that_say_what_is_wrong(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file: Path = tmp_path_factory.getbasetemp() / "mutated.yaml"
    file.write_bytes(content)
    _answers(lambda: load_job(file))
    _answers(lambda: _read_spec(content.decode("utf-8", "replace"), None))  # a message's text is always UTF-8
    text = content.decode("utf-8-sig", "replace")
    _answers(lambda: read_job_text(text, name="x").spec({}))
    document, _ = read_yaml(text)
    try:
        as_json = json.dumps(document)
    except (ValueError, TypeError):  # keys that JSON does not allow, or a list that contains itself
        return
    _answers(lambda: _read_spec(as_json, "x"))
    _answers(lambda: read_job_text(as_json).spec({}))
