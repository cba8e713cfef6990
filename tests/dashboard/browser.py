"""A headless Chromium at a service's pages."""

from __future__ import annotations

import base64
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
MISSING = [name for name, found in (("chromium", CHROMIUM), ("chromedriver", DRIVER)) if found is None]
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage")


class Browser:
    """One browser window. `address` is host and port of the service."""

    def __init__(self, address: str) -> None:
        self.address = address
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM or ""
        for flag in _FLAGS:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER or ""))
        self._console: list[str] = []
        self._hosts: set[str] = set()

    def close(self) -> None:
        """End Chromium."""
        self.driver.quit()

    def open(self, path: str, *, width: int = 1440, height: int = 900, dark: bool = False) -> None:
        """Load a page, in a window of this size and theme, and wait until it is connected."""
        self.resize(width, height)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get(f"http://{self.address}{path}")
        self.until(lambda: self.js("return window.did_handshake === true"), f"{path} was never connected")

    def resize(self, width: int, height: int = 900) -> None:
        """Change the size of the window."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def js(self, script: str, *arguments: Any) -> Any:
        """Run a script and return its result."""
        return self.driver.execute_script(script, *arguments)

    def until(self, condition: Callable[[], Any], otherwise: str, seconds: float = 60) -> Any:
        """Wait for a true value of the condition and return it. Fails with `otherwise` if there is none in time."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, f"{otherwise}\n{self.text[:2000]}"
            time.sleep(0.05)
        return found

    def soon(self, condition: Callable[[], Any], seconds: float = 5) -> bool:
        """Whether the condition becomes true within some seconds."""
        deadline = time.monotonic() + seconds
        while not (found := bool(condition())) and time.monotonic() < deadline:
            time.sleep(0.05)
        return found

    def press(self, key: str) -> None:
        """Press a key, whatever has the focus: the page may replace that element meanwhile."""
        ActionChains(self.driver).send_keys(key).perform()

    def find(self, selector: str) -> WebElement:
        """Wait for an element that matches the selector and return the first one."""
        found: WebElement = self.until(
            lambda: next(iter(self.driver.find_elements(By.CSS_SELECTOR, selector)), None), f"no {selector}"
        )
        return found

    def button(self, text: str) -> WebElement:
        """Wait for a visible button or link whose text or label begins with `text`, and return it."""
        script = """
            const name = (e) => (e.getAttribute('aria-label') || e.innerText).trim();
            const all = [...document.querySelectorAll('button, a, [role=tab]')];
            return all.find((e) => e.getClientRects().length && name(e).startsWith(arguments[0]));
        """
        found: WebElement = self.until(lambda: self.js(script, text), f"no button {text!r}")
        return found

    def field(self, label: str) -> WebElement:
        """Wait for an input or text area whose label begins with `label`, and return it."""
        script = """
            return [...document.querySelectorAll('input, textarea')].find((e) =>
                (e.getAttribute('aria-label') || '').startsWith(arguments[0]))
        """
        found: WebElement = self.until(lambda: self.js(script, label), f"no field {label!r}")
        return found

    def write(self, label: str, text: str) -> None:
        """Replace a field's content."""
        field = self.field(label)
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(Keys.DELETE)
        field.send_keys(text)

    @property
    def text(self) -> str:
        """The text of the page; empty while another page is loaded."""
        return str(self.js("return document.body?.innerText ?? ''"))

    def series(self, selector: str) -> list[dict[str, Any]]:
        """Return name and data of each series that a chart draws now; empty if there is no chart yet."""
        script = """
            const chart = document.querySelector(arguments[0]);
            const drawn = chart && getElement(chart.id.slice(1))?.chart?.getOption();
            return JSON.stringify((drawn?.series ?? []).map((s) => ({name: s.name, data: s.data})));
        """
        found: list[dict[str, Any]] = json.loads(self.js(script, selector))
        return found

    def drag(self, place: WebElement, begin: float, end: float) -> bool:
        """Drag over an element, between two shares of its width. Returns True, so that a condition can use it."""
        width = place.size["width"]
        chain = ActionChains(self.driver, duration=50)
        chain.move_to_element_with_offset(place, int((begin - 0.5) * width), 0).click_and_hold()
        chain.move_by_offset(int((end - begin) * width / 2), 0).move_by_offset(int((end - begin) * width / 2), 0)
        chain.release().perform()
        return True

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than its window."""
        return int(self.js("return document.documentElement.scrollWidth - window.innerWidth"))

    def charts_too_wide(self) -> int:
        """Return how many charts are wider than their box."""
        drawn = "'.gantt svg, .gantt canvas, .chart svg, .chart canvas'"
        wider = "(d) => d.getBoundingClientRect().width > d.closest('.gantt, .chart').clientWidth + 1"
        return int(self.js(f"return [...document.querySelectorAll({drawn})].filter({wider}).length"))

    def overlapping_texts(self) -> list[str]:
        """Return pairs of texts in charts that overlap, and texts that a chart cuts off."""
        script = """
            const found = [], shown = (r) => r.width > 0 && r.left > -500;
            for (const svg of document.querySelectorAll('.chart svg, .gantt svg')) {
                const around = svg.getBoundingClientRect();
                const texts = [...svg.querySelectorAll('text')].map((e) => [e.textContent, e.getBoundingClientRect()]);
                const seen = texts.filter(([text, r]) => text && shown(r));
                for (const [text, r] of seen)
                    if (r.left < around.left - 2 || r.right > around.right + 2) found.push(`${text} is cut`);
                seen.forEach(([text, a], i) => seen.slice(i + 1).forEach(([other, b]) => {
                    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
                    const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
                    if (wide > 2 && high > 3) found.push(`${text} on ${other}`);
                }));
            }
            return found;
        """
        return list(self.js(script))

    def hidden_fields(self) -> list[str]:
        """Return controls and cells that are beyond the right edge of the window or of a box that scrolls."""
        script = """
            const edge = (e) => e.closest('.scroll, .q-tab-panel')?.getBoundingClientRect().right ?? window.innerWidth;
            const all = [...document.querySelectorAll('main input, main button, main a, main td')];
            return all.filter((e) => e.getClientRects().length && !e.closest('.q-tabs, .logbox'))
                .filter((e) => e.getBoundingClientRect().right > Math.min(edge(e), window.innerWidth) + 1)
                .map((e) => `${e.tagName} ${e.getAttribute('aria-label') || e.innerText}`.slice(0, 60));
        """
        return list(self.js(script))

    def console_errors(self) -> list[str]:
        """Return errors and warnings on the console since `forget`."""
        entries: list[dict[str, Any]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        self._console += [f"{e['level']} {e['message']}" for e in entries if e["level"] in ("SEVERE", "WARNING")]
        return self._console

    def forget(self) -> None:
        """Forget the errors on the console and the hosts so far."""
        self.console_errors(), self.hosts()
        self._console, self._hosts = [], set()

    def hosts(self) -> set[str]:
        """Return hosts and ports to which the browser sent requests, or opened websockets, since `forget`."""
        entries: list[dict[str, Any]] = self.driver.get_log("performance")  # type: ignore[no-untyped-call]
        for entry in entries:
            message = json.loads(entry["message"])["message"]
            url = None
            if message["method"] == "Network.requestWillBeSent":
                url = message["params"]["request"]["url"]
            elif message["method"] == "Network.webSocketCreated":
                url = message["params"]["url"]
            if url and urlsplit(url).hostname:
                self._hosts.add(urlsplit(url).netloc)
        return self._hosts

    def screenshot(self, file: Path, most_height: int = 4000) -> None:
        """Write a picture of the whole page as a PNG file."""
        width = int(self.js("return window.innerWidth"))
        height = min(most_height, int(self.js("return document.documentElement.scrollHeight")))
        self.driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        self.resize(width, height)
        time.sleep(0.5)
        content = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        file.write_bytes(base64.b64decode(content["data"]))
