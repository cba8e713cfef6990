"""The pages with keyboard and touch, and a reader's choices on a page."""

from __future__ import annotations

import contextlib
import urllib.request

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.keys import Keys

from cluster.client import Job
from cluster.dashboard.terms import TERMS
from coordinator.texts import number
from tests.dashboard.browser import Browser
from tests.dashboard.test_pages import PAGES


def explanation(browser: Browser) -> str:
    """Return the text of the box beside a word; empty if there is none."""
    return str(browser.js("return document.querySelector('#explanation.shown')?.textContent ?? ''"))


def test_words_are_explained_to_the_keyboard_and_to_a_finger(browser: Browser) -> None:
    """The words had only a title attribute, which neither keyboard nor touch reaches."""
    browser.open("/schedule", width=375)
    word = browser.find(".facts .term[tabindex='0']")
    browser.js("arguments[0].focus()", word)
    assert explanation(browser) == TERMS["bubble"]
    described = browser.js("return document.getElementById(document.activeElement.getAttribute('aria-describedby'))")
    assert described.text == TERMS["bubble"]
    word.send_keys(Keys.ARROW_RIGHT)
    assert explanation(browser) in set(TERMS.values()) - {TERMS["bubble"]}
    browser.press(Keys.ESCAPE)
    assert explanation(browser) == ""
    script = "[...document.querySelectorAll('.term')].find((e) => e.innerText === 'most kept').click()"
    browser.js(script)
    assert explanation(browser) == TERMS["most kept"]
    right, left = browser.js(
        "const r = document.querySelector('#explanation').getBoundingClientRect(); return [r.right, r.left]"
    )
    assert 0 <= left < right <= 375


def test_numbers_are_written_alike_by_both_sides(browser: Browser) -> None:
    browser.open("/schedule")
    for value in (0, 0.02482, 0.00012349, 1.23e-5, 17.5, 1234.6, 123456, 1e6, 1.2e16, -2.5e-7):
        assert browser.js("return pipetrain.number(arguments[0])", value) == number(value)


def test_a_range_of_steps_is_in_the_address_and_its_points_are_a_file(browser: Browser, endless: Job) -> None:
    chart = '[aria-label^="Loss over steps"]'

    def steps() -> list[int]:
        series = browser.series(chart)
        return [point[0] for point in series[0]["data"]] if series else []

    browser.open(f"/jobs/{endless.id}")
    everything = browser.until(lambda: found if len(found := steps()) > 8 else None, "no curve is drawn")
    first, last = everything[1], everything[-2]
    browser.open(f"/jobs/{endless.id}?from={first}&to={last}&smooth=10")
    browser.until(lambda: steps() and first <= steps()[0] <= steps()[-1] <= last, "the address's range is not drawn")
    link = browser.button("CSV of Loss").get_attribute("href") or ""
    head, *lines = urllib.request.urlopen(link).read().decode().splitlines()
    assert head == "step,loss,validation_loss"
    assert all(first <= int(line.partition(",")[0]) <= last for line in lines)
    assert lines

    before = browser.driver.current_url

    def dragged() -> bool:
        """Drag, again if it was lost because the page had to reconnect, perhaps in the middle of it."""
        with contextlib.suppress(StaleElementReferenceException):
            place = browser.find(chart)
            browser.js("arguments[0].scrollIntoView({block: 'center'})", place)
            browser.drag(place, 0.4, 0.9)
        return browser.soon(lambda: browser.driver.current_url != before)

    browser.until(dragged, "dragging chooses no range")
    browser.until(lambda: steps()[0] > first, "the range is not drawn")
    assert "from=" in browser.driver.current_url
    assert "smooth=10" in browser.driver.current_url

    def all_steps() -> bool:
        """Press the button, again if the key was lost because the page had to reconnect."""
        with contextlib.suppress(StaleElementReferenceException):
            browser.button("All steps").send_keys(Keys.ENTER)
        return "from=" not in browser.driver.current_url

    browser.until(all_steps, "the range stays in the address")
    browser.until(lambda: steps()[:1] == [1], "the range stays")


def test_the_list_is_sorted_by_any_column_and_ids_are_copied(browser: Browser, endless: Job) -> None:
    browser.open("/")
    row = f"tr[data-job='{endless.id}']"
    browser.find(row)
    shown = browser.until(
        lambda: cells if all((cells := browser.js(_FIGURES, row)).values()) else None, "figures of the job are missing"
    )
    assert (shown["stages"], shown["schedule"], shown["batch"]) == ("2", "1f1b", "200")
    way = "return [...document.querySelectorAll('th')].find((e) => e.innerText.startsWith('Stages')).ariaSort"
    for expected in ("ascending", "descending", "none"):
        browser.button("Stages").click()
        browser.until(lambda expected=expected: browser.js(way) == expected, f"it is not {expected}")  # type: ignore[misc]
    browser.js("navigator.clipboard.writeText = (text) => { window.copied = text; return Promise.resolve(); }")
    browser.find(f"{row} .copy").click()
    assert browser.js("return window.copied") == endless.id


_FIGURES = """
    const of = (name) => document.querySelector(`${arguments[0]} .${name} .number`)?.innerText ?? '';
    return Object.fromEntries(['stages', 'schedule', 'batch', 'rate', 'best'].map((name) => [name, of(name)]));
"""


def test_a_large_schedule_has_figures_and_a_picture_that_can_be_moved(browser: Browser) -> None:
    """32 stages × 128 micro-batches: nothing was shown at all."""
    browser.open("/schedule?schedule=1f1b&stages=32&micro_batches=128")
    browser.until(lambda: "part 1 of" in browser.text, "no picture in parts")
    assert "19.5%" in browser.text

    def first_drawn() -> float:
        bars = [bar for series in browser.series(".gantt") for bar in series["data"]]
        return min((bar[1] for bar in bars), default=-1)

    assert browser.until(lambda: first_drawn() == 0, "the beginning is not drawn")
    browser.button("Later").click()
    browser.until(lambda: "part 2 of" in browser.text and first_drawn() > 0, "it does not move")


_FOCUS = """
    const here = document.activeElement, box = here.closest('.q-field__control, .cm-editor') ?? here;
    const style = getComputedStyle;
    const ringed = (e) => style(e).outlineStyle !== "none" && parseFloat(style(e).outlineWidth) > 1;
    const was = window.focusBefore;
    window.focusBefore = here;
    return {
        page: here === document.body, repeated: here === was, visible: ringed(here) || ringed(box),
        name: `${here.tagName} ${(here.getAttribute('aria-label') || here.innerText || '').trim().slice(0, 40)}`,
    };
"""


@pytest.mark.parametrize("path", ["/", "/submit", "/cluster", "/schedule", "JOB"])
def test_tab_goes_on_through_a_page_that_changes_meanwhile(browser: Browser, endless: Job, path: str) -> None:
    """A live page replaced its nodes by new ones, and the focus went back to the page's beginning."""
    address = path.replace("JOB", f"/jobs/{endless.id}")
    visited = browser.until(lambda: _walk(browser, address, live=path in ("/", "JOB")), "it had to reconnect each time")
    assert len(visited) >= 5, visited
    if path == "/":
        assert any("Stop endless" in name for name in visited)


def _walk(browser: Browser, address: str, *, live: bool) -> list[str] | None:
    """Press Tab again and again; return the controls that had the focus. None if the page was loaded again meanwhile,
    as it is when it had lost its connection: then the focus begins anew."""
    browser.open(address)
    browser.find(PAGES[address if address in PAGES else "JOB"])
    browser.js("window.walked = true")
    visited: list[str] = []
    for _ in range(30):
        browser.press(Keys.TAB)
        focus = browser.js(_FOCUS)
        if live and len(visited) % 4 == 0 and not focus["page"]:
            before = browser.text
            browser.until(lambda before=before: browser.text != before, "the page does not change")  # type: ignore[misc]
        stays, same = browser.js("return [document.activeElement === window.focusBefore, window.walked === true]")
        if not same:
            return None
        if focus["page"]:
            break  # after the last control, the focus goes to the browser's own controls
        assert not focus["repeated"], f"Tab stays at {focus['name']}"
        assert focus["visible"], f"the focus is not visible on {focus['name']}"
        assert stays, f"{focus['name']} lost the focus"
        visited.append(focus["name"])
    return visited
