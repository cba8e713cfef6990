"""What the page of a job, and the commands about it, say about a job that learns nothing and is slow."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from cluster.client import Job
from cluster.dashboard.pages.job_warnings import warning_texts
from cluster.service.records import EventRecord
from tests.dashboard.browser import Browser
from tests.service.running import Service, until


@pytest.fixture(scope="module")
def faulty(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    """A running job with inputs of different sizes, which evaluates most of the time."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(20_000, 3)) * [4000, 0.3, 1]
    file = tmp_path_factory.mktemp("faulty") / "rows.npz"
    np.savez(file, x=x, y=x[:, 1:2])
    job = service.client.submit(
        {
            "name": "faulty",
            "model": {"input": [3], "layers": [{"linear": {"units": 64}}, "tanh", {"linear": {"units": 1}}],
                      "loss": "mse"},
            "data": {"source": str(file), "validation": 0.95},
            "training": {"epochs": 100_000, "batch_size": 100, "micro_batches": 2, "evaluate_every": 1,
                         "optimizer": {"sgd": {"learning_rate": 0.001}}},
            "pipeline": {"stages": 1},
        }
    )  # fmt: skip
    yield until(job, "RUNNING")
    job.stop(now=True)


def test_the_page_says_why_a_job_may_learn_nothing_and_why_it_is_slow(browser: Browser, faulty: Job) -> None:
    browser.open(f"/jobs/{faulty.id}")
    browser.until(
        lambda: "Warning: the inputs differ in size: values of x[:, 0] are about" in browser.text, "no warning"
    )
    browser.until(lambda: "Why it is slow: evaluations take" in browser.text, "not why it is slow")
    assert browser.text.count("Warning: ") == len(browser.js("return document.querySelectorAll('.warning')"))
    browser.open(f"/jobs/{faulty.id}")
    browser.until(lambda: "Warning: the inputs differ in size" in browser.text, "gone after the page was loaded again")
    assert browser.text.count("Warning: the inputs differ") == 1


def test_describe_and_logs_have_the_warning(service: Service, faulty: Job) -> None:
    described = service.run("describe", faulty.id).stdout
    assert "\nwarning     the inputs differ in size: values of x[:, 0] are about" in described
    assert "warning: the inputs differ in size" in service.run("logs", faulty.id).stdout


def test_a_kind_of_warning_that_a_later_attempt_repeats_is_shown_once() -> None:
    def event(seq: int, kind: str, text: str, **details: object) -> EventRecord:
        return EventRecord(seq=seq, time=0.0, kind=kind, attempt=seq, text=text, details=details)

    events = [
        event(1, "warning", "use `relu`", code="dead_units"),
        event(2, "recovering", "Ray was lost"),
        event(3, "warning", "use `gelu`", code="dead_units"),
        event(4, "warning", "another one", code="loss_jump"),
    ]
    assert warning_texts(events) == {"dead_units": "use gelu", "loss_jump": "another one"}
