"""A headless Chromium that looks at pages, and what it finds wrong with them."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WIDTHS = (360, 768, 1280)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

CHECK = """
const found = [];
if (document.documentElement.scrollWidth > innerWidth)
  found.push(`overflow: ${document.documentElement.scrollWidth} > ${innerWidth}`);
const rgb = c => { const m = c.match(/color\\(srgb ([^)]*)\\)/);
  if (m) { const p = m[1].split(/[ /]+/).map(Number); return [p[0]*255, p[1]*255, p[2]*255, p.length > 3 ? p[3] : 1]; }
  const p = c.match(/[\\d.]+/g).map(Number); return [p[0], p[1], p[2], p.length > 3 ? p[3] : 1]; };
const lum = c => {
  const f = c.slice(0, 3).map(v => { v /= 255; return v <= .03928 ? v/12.92 : ((v+.055)/1.055)**2.4; });
  return .2126*f[0] + .7152*f[1] + .0722*f[2]; };
const over = (top, below) => [0, 1, 2].map(i => top[i]*top[3] + below[i]*(1 - top[3])).concat([1]);
const ground = e => { const layers = [];
  for (let n = e; n; n = n.parentElement) { const c = rgb(getComputedStyle(n).backgroundColor);
    if (c[3] > 0) layers.push(c); if (c[3] === 1) break; }
  return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]); };
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const seen = new Set();
while (walker.nextNode()) {
  const e = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || seen.has(e) || ["SCRIPT", "STYLE", "TITLE"].includes(e.tagName)) continue;
  seen.add(e);
  if (!e.getClientRects().length) continue;
  const style = getComputedStyle(e), below = ground(e);
  const ink = over(rgb(e instanceof SVGElement ? style.fill : style.color), below);
  const [a, b] = [lum(ink), lum(below)], ratio = (Math.max(a, b) + .05)/(Math.min(a, b) + .05);
  if (ratio < 4.5) found.push(`contrast ${ratio.toFixed(2)}: <${e.tagName}> ${e.textContent.slice(0, 40)}`);
}
for (const e of document.querySelectorAll("svg")) {
  if (!e.getAttribute("aria-label") && e.getAttribute("aria-hidden") !== "true" && !e.closest("[role=img]"))
    found.push(`svg without a name: ${e.outerHTML.slice(0, 80)}`);
}
for (const e of document.querySelectorAll("img")) if (!e.alt) found.push("img without alt");
for (const e of document.querySelectorAll("th")) if (!e.scope) found.push(`th without scope: ${e.textContent}`);
for (const e of document.querySelectorAll(".scroll, pre")) {
  if (e.scrollWidth > e.clientWidth && (e.tabIndex < 0 || !e.getAttribute("aria-label")))
    found.push(`scrolls, but not by keyboard: ${e.textContent.slice(0, 40)}`);
}
if (document.querySelectorAll("main").length !== 1 || document.querySelectorAll("h1").length !== 1)
  found.push("one main and one h1 are expected");
if (!document.documentElement.lang) found.push("no language");
return found;
"""


def why_not() -> str | None:
    """Why there is no browser to look with; None where there is one."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed (pip install selenium)"
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"{' and '.join(missing)} not found (apt-get install chromium chromium-driver)" if missing else None


class Browser:
    """Chromium as selenium drives it."""

    def __init__(self, driver: Any):
        self.driver = driver

    def show(self, page: Path, width: int, dark: bool) -> None:
        """Open a page on a screen of some width, light or dark, with everything unfolded."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        if self.driver.current_url != page.absolute().as_uri():
            self.driver.get(page.absolute().as_uri())

    def faults(self) -> list[str]:
        """What is wrong with the page that is shown, folded parts unfolded."""
        self.driver.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
        said = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return [*said, *self.driver.execute_script(CHECK)]

    def photograph(self, path: Path) -> None:
        """The whole page as a PNG."""
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def open_browser(profile: Path) -> Iterator[Browser]:
    """A browser of its own, closed at the end; it takes about two seconds."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.binary_location = shutil.which("chromium") or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
