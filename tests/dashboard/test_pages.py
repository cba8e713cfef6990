"""The pages in a real browser, of a real service with a running job."""

from __future__ import annotations

import itertools
import re
import time
import urllib.request
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from cluster.client import Job
from coordinator.program.replay import replay
from coordinator.schedules import build
from coordinator.timing.prediction import as_performed
from tests.dashboard.browser import Browser
from tests.service.running import Service, until, wait_for

BUBBLE = 3
_STILL_S = 1.2  # three times the interval at which a visible page looks for news
WRONG = """\
name: wrong
model:
  input: [64]
  layers:
    - linear: {unit: 10}
    - softplas
  loss: cross_entropy
data: {source: digits}
training:
  epochs: 0
  batch_size: 10
  optimizer: {sgd: {learning_rate: -1}}
"""


def step_shown(browser: Browser) -> int:
    """Return the step that a job's page shows."""
    found = re.search(r"step\n([\d,]+) of", browser.text)
    return int(found[1].replace(",", "")) if found else -1


def losses(browser: Browser) -> list[Any]:
    """Return the points of a job's loss that are drawn now."""
    series = browser.series('[aria-label^="Loss over steps"]')
    return series[0]["data"] if series else []


def test_a_job_submitted_in_the_form_is_seen_to_train_is_stopped_and_deleted(
    browser: Browser, service: Service
) -> None:
    browser.open("/submit")
    browser.write("Name", "from-the-form")
    browser.write("Epochs", "100000")
    browser.write("Stages", "1")
    browser.button("Submit").click()
    browser.until(lambda: "/jobs/" in browser.driver.current_url, "submitting led nowhere")
    job = browser.driver.current_url.rpartition("/")[2]
    browser.until(lambda: "RUNNING" in browser.text and step_shown(browser) > 0, "it never ran", 90)
    first = browser.until(lambda: losses(browser), "no loss is drawn")
    browser.until(lambda: losses(browser)[-1:] != first[-1:], "the loss does not move")

    browser.button("Stop").click()
    browser.until(lambda: "STOPPED" in browser.text and "weights saved" in browser.text, "it never stopped")
    model = browser.button("Download the model").get_attribute("href")
    assert model is not None
    assert urllib.request.urlopen(model).read() == (service.home.run_directory(job) / "model.safetensors").read_bytes()

    browser.button("Go on").click()
    browser.until(lambda: f"Go on with job {job}" in browser.text, "it did not ask what changes")
    browser.js("document.querySelector('.q-dialog button').focus()")
    browser.press(Keys.ENTER)
    browser.until(lambda: job not in browser.driver.current_url, "going on led nowhere")
    after = service.client.job(browser.driver.current_url.rpartition("/")[2])
    assert f"after step {service.client.job(job).step} of job {job}" in "\n".join(e.text for e in after.events())
    until(after.stop(now=True), "STOPPED")
    browser.open(f"/jobs/{job}")

    browser.button("Delete").click()
    browser.until(lambda: f"Delete job {job}" in browser.text, "it was not asked again")
    browser.js("document.querySelector('.q-dialog button').focus()")
    browser.press(Keys.ENTER)
    browser.until(
        lambda: browser.driver.current_url.endswith(":" + browser.address.partition(":")[2] + "/"), "still there"
    )
    assert job not in [found.id for found in service.client.list()]


def test_the_pipeline_of_a_running_job_shows_its_actions_and_its_bubbles(browser: Browser, endless: Job) -> None:
    browser.open(f"/jobs/{endless.id}")

    def bubbles(panel: dict[str, Any]) -> set[int]:
        return {bar[0] for bar in panel["data"] if bar[3] == BUBBLE}

    def drawn() -> list[dict[str, Any]] | None:
        found = browser.series(".gantt")  # if the system delayed an action, all bubbles may be too short to be drawn
        return found if len(found) == 2 and all(bubbles(panel) == {0, 1} for panel in found) else None

    for panel in browser.until(drawn, "no prediction beneath, or a 1F1B lane without bubbles"):
        actions = {tuple(bar[i] for i in (4, 3, 5)) for bar in panel["data"] if bar[3] != BUBBLE}
        assert actions == {(stage, kind, j) for stage in range(2) for kind in range(3) for j in range(6)}
        for worker in range(2):
            lane = sorted(bar[1:3] for bar in panel["data"] if bar[0] == worker)
            assert all(end <= later + 1e-9 for (_, end), (later, _) in itertools.pairwise(lane)), lane
    label = browser.find(".gantt").get_attribute("aria-label") or ""
    assert re.search(r"Step \d+, 2 workers; measured: [\d.]+ ms, idle [\d.]+%", label), label
    browser.until(
        lambda: (later := browser.find(".gantt").get_attribute("aria-label") or "") != label and "measured" in later,
        "the description for screen readers stays that of the first picture",
    )


def test_a_step_is_shown_soon_and_the_series_stay_short(browser: Browser, endless: Job) -> None:
    browser.open(f"/jobs/{endless.id}")
    browser.until(lambda: step_shown(browser) > 400, "too few steps", 120)

    def soon() -> bool:
        """Whether the step that the service knows now is on the page within three seconds."""
        before, deadline = endless.refresh().step, time.monotonic() + 3
        while step_shown(browser) < before:
            if time.monotonic() > deadline:
                return False
        return True

    assert any(soon() for _ in range(5)), "the page lags behind"  # not at each look: the machine may be busy
    assert all(len(series["data"]) <= 301 for series in browser.series('[aria-label^="Loss over steps"]'))


def test_a_page_that_nobody_sees_is_sent_nothing_and_catches_up_when_it_is_seen(browser: Browser, endless: Job) -> None:
    def hide(hidden: bool) -> None:
        script = """
            Object.defineProperty(document, 'hidden', {value: arguments[0], configurable: true});
            document.dispatchEvent(new Event('visibilitychange'));
        """
        browser.js(script, hidden)

    browser.open(f"/jobs/{endless.id}")
    browser.until(lambda: step_shown(browser) > 0, "no step is shown")
    hide(True)

    def seen() -> tuple[int, int]:
        return browser.js("return window.nextMessageId"), step_shown(browser)

    def still() -> tuple[int, int] | None:
        """Return number of messages and step of the page if they stay the same while the job makes steps, else None."""
        before, made, end = seen(), endless.refresh().step, time.monotonic() + _STILL_S
        wait_for(lambda: endless.refresh().step > made and time.monotonic() > end, "the job stands still")
        return before if seen() == before else None

    _, step = browser.until(still, "it is sent news all the time")
    hide(False)
    browser.until(lambda: step_shown(browser) > step, "it does not catch up")


def test_the_loss_can_be_drawn_on_a_logarithmic_axis(browser: Browser, endless: Job) -> None:
    def axis() -> str | None:
        script = """
            const chart = document.querySelector('[aria-label^="Loss over steps"]');
            return (chart && getElement(chart.id.slice(1))?.chart?.getOption()?.yAxis[0].type) ?? null;
        """
        found: str | None = browser.js(script)
        return found

    def logarithmic() -> bool:
        """Choose the logarithmic axis, again if the page was loaded again: a page does that after a lost connection."""
        switch = "document.querySelector('.panel .q-checkbox[aria-checked=false]')"
        if losses(browser) and browser.js(f"const switch_ = {switch}; switch_?.focus(); return switch_ !== null"):
            browser.press(" ")
        return axis() == "log"

    browser.open(f"/jobs/{endless.id}")
    browser.until(lambda: losses(browser), "no loss is drawn")
    browser.until(lambda: axis() == "value", "the axis is not linear at first")
    browser.until(logarithmic, "the axis is as it was")
    browser.until(lambda: losses(browser), "the loss is drawn no more")


def test_where_the_time_goes_sums_to_all_of_it(browser: Browser, endless: Job) -> None:
    browser.open(f"/jobs/{endless.id}")
    parts = browser.until(lambda: browser.series('[aria-label^="Share of each worker"]'), "no account is drawn")
    for worker in range(2):
        assert sum(part["data"][worker] for part in parts) == pytest.approx(1, abs=0.01)
    assert {"forward", "input gradient", "weight gradient"} <= {part["name"] for part in parts}


def test_the_memory_of_a_job_is_told_beside_its_limit(browser: Browser, endless: Job) -> None:
    script = """
        const table = [...document.querySelectorAll('table')].find((t) => t.innerText.includes('limit'));
        return [...(table?.rows ?? [])].map((row) => [...row.cells].map((cell) => cell.innerText));
    """
    browser.open(f"/jobs/{endless.id}")
    head, *rows = browser.until(lambda: rows if len(rows := browser.js(script)) == 3 else None, "no memory is shown")
    job, limit = head.index("peak of the process"), head.index("limit")
    assert [row[0] for row in rows] == ["0", "1"]
    for row in rows:
        assert re.fullmatch(r"[\d,.]+ [KM]iB", row[job]), row
        assert re.fullmatch(r"[\d,.]+ [MG]iB|none", row[limit]), row


def test_logs_and_job_file_and_plan_are_below(browser: Browser, endless: Job) -> None:
    browser.open(f"/jobs/{endless.id}")
    browser.button("Logs").click()
    browser.until(lambda: "worker 0 starts" in browser.text, "no log line of worker 0")
    browser.button("Job file").click()
    browser.until(lambda: "batch_size: 200" in browser.text, "no job file")
    browser.button("Files").click()
    browser.until(lambda: "metrics.jsonl" in browser.text, "no file")
    browser.button("Plan").click()
    browser.button("Make the plan").click()
    browser.until(lambda: "bottleneck worker" in browser.text, "no plan")


def test_a_trace_asked_for_on_the_page_is_offered(browser: Browser, endless: Job) -> None:
    browser.open(f"/jobs/{endless.id}")
    browser.write("Steps", "3")
    browser.button("Trace").click()
    link = browser.button("trace.json").get_attribute("href")
    assert link is not None
    assert b'"ph":"X"' in urllib.request.urlopen(link).read()


def test_a_wrong_job_file_has_its_problems_at_their_lines_and_is_not_submitted(
    browser: Browser, service: Service
) -> None:
    before = len(list(service.client.list()))
    browser.open("/submit")
    browser.button("Job file").click()
    browser.find(".cm-content").click()
    browser.js("document.execCommand('selectAll'); document.execCommand('insertText', false, arguments[0])", WRONG)
    browser.button("Submit").click()
    browser.until(lambda: "line 10" in browser.text, "no problem is shown")
    said = browser.text
    for line, place in ((5, "model.layers[0].linear.unit:"), (6, "model.layers[1]:"), (10, "training.epochs:")):
        assert f"line {line}: {place}" in said
    assert "line 12: training.optimizer.sgd.learning_rate: got -1" in said

    def marked() -> list[str]:
        lines = browser.js("return [...document.querySelectorAll('.wrong-line')].map((e) => e.innerText)")
        return [text.strip().split("\n")[0].split("◂")[0].strip().split(":")[0] for text in lines]

    browser.until(lambda: marked()[2:3] == ["epochs"], "the lines are not marked")
    assert len(list(service.client.list())) == before


def test_an_unknown_job_has_a_page_that_says_so(browser: Browser, endless: Job) -> None:
    nearly = endless.id[:-1] + ("a" if endless.id[-1] != "a" else "b")
    browser.open(f"/jobs/{nearly}")
    browser.until(lambda: f"No job has the id or the name '{nearly}'" in browser.text, "it says nothing")
    browser.button(f"Job {endless.id}").click()
    browser.until(lambda: "RUNNING" in browser.text, "the nearest id led nowhere")
    entries = [e for e in browser.console_errors() if "404" not in e]  # the page's own status
    browser.forget()
    assert not entries


def test_an_address_that_is_no_page_has_a_page_of_ours_that_leads_back(browser: Browser) -> None:
    browser.open("/nothing")
    assert "There is no such page" in browser.text
    assert "Nothing is at /nothing" in browser.text
    told = browser.console_errors()
    assert any("404" in entry for entry in told), "it has no status of its own"
    assert all("404" in entry for entry in told)
    browser.forget()
    browser.button("All jobs").click()
    browser.until(lambda: "Submit a job" in browser.text, "the link led nowhere")


def test_the_schedule_page_draws_what_a_dry_run_says(browser: Browser) -> None:
    browser.open("/schedule?schedule=1f1b&stages=3&micro_batches=5")
    browser.write("Stages p", "6")
    wanted = replay(as_performed(build("1f1b", n_stages=6, n_micro_batches=5)))
    browser.until(lambda: f"{100 * wanted.bubble:.1f}%" in browser.text, "another bubble is shown")
    forward = sorted(
        (worker, start, end)
        for worker, lane in enumerate(wanted.spans)
        for action, start, end in lane
        if action.kind == "F"
    )

    def drawn() -> list[tuple[float, ...]]:
        panels = browser.series(".gantt")
        return sorted((bar[0], bar[1], bar[2]) for panel in panels for bar in panel["data"] if bar[3] == 0)

    browser.until(lambda: drawn() == forward, "the picture is another one")  # it is sent after the figures
    browser.write("Workers", "9")
    browser.until(lambda: "must be 1 to 6: each worker needs" in browser.text, "an impossible number is not explained")
    assert not browser.find(".gantt").is_displayed()
    browser.write("Workers", "0")
    browser.until(lambda: browser.find(".gantt").is_displayed(), "a right number does not bring the picture back")
    browser.write("Stages p", "")
    browser.until(lambda: "must be whole numbers" in browser.text, "an empty field is not explained")
    browser.field("Stages p").send_keys("6")
    browser.until(lambda: browser.find(".gantt").is_displayed(), "the same number does not bring the picture back")
    assert "must be whole numbers" not in browser.text


PAGES = {
    "/": "tr[data-job]",
    "/submit": "input[aria-label='Epochs']",
    "/cluster": "td a[href^='/jobs/']",
    "/schedule": ".gantt svg",
    "/lab": ".gantt svg",
    "JOB": ".gantt svg",
}
"""The element of each page that shows that the page is complete."""


def test_no_page_is_wider_than_a_phone_or_a_screen(browser: Browser, endless: Job) -> None:
    for path, content in PAGES.items():
        browser.open(path.replace("JOB", f"/jobs/{endless.id}"), width=1440, dark=path == "/")
        browser.find(content)
        assert browser.overflow() <= 0, f"{path} at 1440 pixels"
        assert browser.overlapping_texts() == [], f"{path} at 1440 pixels"
        browser.resize(375)
        assert browser.overflow() <= 0, f"{path} at 375 pixels"
        browser.until(lambda: browser.charts_too_wide() == 0, f"a chart of {path} is not drawn again at 375 pixels")
        assert browser.overlapping_texts() == [], f"{path} at 375 pixels"
        assert browser.hidden_fields() == [], f"{path} at 375 pixels"
        assert browser.driver.title.endswith("· pipetrain")
        assert len(browser.js("return [...document.querySelectorAll('h1')].map((e) => e.innerText)")) == 1, path


def test_the_main_actions_can_be_reached_by_keyboard(browser: Browser, endless: Job) -> None:
    def tab_to(text: str) -> None:
        for _ in range(40):
            browser.press(Keys.TAB)
            if browser.js("const e = document.activeElement; return e.ariaLabel || e.innerText").startswith(text):
                return
        raise AssertionError(f"40 tabs do not reach {text!r}")

    browser.open("/")
    tab_to("Skip to main content")
    for text in ("Jobs", "Cluster", "Schedules", "Submit a job"):
        tab_to(text)
    browser.press(Keys.ENTER)
    browser.until(lambda: browser.driver.current_url.endswith("/submit"), "Enter does not follow the link")
    browser.open(f"/jobs/{endless.id}")
    browser.button("Stop")
    for text in ("Copy the id", "Steps", "Trace", "Stop", "From step", "Events"):
        tab_to(text)


def test_a_failed_job_tells_its_cause_and_leads_to_the_line_of_the_log(
    browser: Browser, service: Service, document: dict[str, Any]
) -> None:
    hot = {**document["training"], "micro_batches": 2, "optimizer": {"sgd": {"learning_rate": 1e30}}}
    job = service.client.submit({**document, "name": "too-hot", "training": hot})
    job.wait(timeout=120)
    logs = [file.read_text() for file in (service.home.run_directory(job.id) / "logs").glob("worker-*.log")]
    assert "AssertionError" not in "".join(logs), "orders behind the failure were performed"
    assert sum(" failed in " in line for log in logs for line in log.splitlines()) == 1, (
        "the failure must be in the logs once"
    )

    browser.open(f"/jobs/{job.id}")
    browser.until(lambda: "try a lower learning rate" in browser.text, "the cause is not shown")
    browser.until(
        lambda: re.search(r"In \d[FBIW]\d, on worker \d: step [\d,]+ of [\d,]+ \([\d,]+ finished\)", browser.text),
        "the place of the failure is not shown",
    )
    failed = browser.until(
        lambda: [bar for series in browser.series(".gantt") for bar in series["data"] if bar[8:] == [1]],
        "the action is not marked",
    )
    assert len({tuple(bar[4:6]) for bar in failed}) == 1
    browser.button("Log of worker").click()
    marked = browser.until(lambda: browser.js("return document.querySelector('.log mark')?.innerText"), "no line")
    assert " failed in " in marked
    assert "became " in marked


def test_after_a_restart_of_the_service_the_page_comes_back_by_itself(
    browser: Browser, service: Service, endless: Job
) -> None:
    browser.open(f"/jobs/{endless.id}")
    before = browser.until(lambda: max(0, step_shown(browser)), "no step is shown")
    service.kill()
    browser.until(lambda: "rying to reconnect" in browser.text, "a lost connection is not shown")
    service.up()
    browser.until(lambda: step_shown(browser) > before, "the page never came back", 120)
    browser.until(lambda: len(browser.series(".gantt")) == 2, "the pipeline is not drawn again")
    first, *_ = browser.until(lambda: losses(browser), "no loss is drawn")
    assert first[0] == 1, "what was before the restart is there"
    refused = [e for e in browser.console_errors() if "ERR_CONNECTION_REFUSED" not in e and "WebSocket" not in e]
    browser.forget()
    assert not refused
