"""The lab's page in a browser."""

from __future__ import annotations

from tests.dashboard.browser import Browser


def test_the_lab_compares_searches_and_keeps_its_settings_in_the_address(browser: Browser) -> None:
    browser.open("/schedule?schedule=1f1b&stages=3&micro_batches=5&backward=1.5")
    browser.until(lambda: "bubble" in browser.text, "no schedule")
    browser.until(lambda: "stages=3" in str(browser.button("Compare all").get_attribute("href")), "no link to the lab")
    browser.button("Compare all").click()
    browser.until(lambda: "The shortest step: " in browser.text, "nothing is compared")
    assert "dualpipev needs at least 6 micro-batches" in browser.text
    drawn = browser.series(".gantt")
    assert len(drawn) == 9, "a picture for each schedule that can be built"
    browser.write("Micro-batches m", "6")
    browser.until(lambda: "micro_batches=6" in browser.driver.current_url, "the address has other settings")
    browser.until(lambda: len(browser.series(".gantt")) == 10, "the pictures are not drawn again")
    browser.button("Search for a better one").click()
    browser.until(lambda: "auto is " in browser.text, "nothing is found")
    assert browser.button("Download auto.csv").is_displayed()
    browser.driver.refresh()
    browser.until(lambda: "The shortest step: " in browser.text, "the address does not work")
    assert browser.field("Micro-batches m").get_attribute("value") == "6"
    browser.write("Memory", "1")
    browser.until(lambda: "the least is 2, of v-half" in browser.text, "an impossible memory is not explained")
