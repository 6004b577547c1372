# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real browser without a window: Debian's chromium, driven by its chromedriver."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

# Nothing that a browser does of its own accord, so that what it asks for is the page's doing.
QUIET = (
    "--headless=new",
    "--no-sandbox",  # which root has not
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
PROGRAMS = ("chromium", "chromedriver")


def browser_missing() -> str | None:
    """What there is none of, and how to get it."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"There is no {' and no '.join(missing)}: tools/setup.sh libvirt" if missing else None


class Browser:
    """One that is started once; pages are files. ``close`` it."""

    def __init__(self, profile: Path) -> None:
        options = Options()
        options.binary_location = shutil.which("chromium") or ""
        for word in (*QUIET, f"--user-data-dir={profile}"):
            options.add_argument(word)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        self.driver = webdriver.Chrome(options, Service(shutil.which("chromedriver") or ""))

    def close(self) -> None:
        self.driver.quit()

    def command(self, name: str, **parameters: Any) -> dict[str, Any]:
        """One of the DevTools protocol."""
        done: dict[str, Any] = self.driver.execute_cdp_cmd(name, parameters)
        return done

    def show(self, page: Path, width: int = 1200, *, dark: bool = False) -> None:
        """Load it in a viewport of ``width`` pixels; windows cannot be that narrow."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[scheme])
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.log("performance")
        self.log("browser")
        self.driver.get(page.as_uri())

    def log(self, kind: str) -> list[dict[str, Any]]:
        """What was logged since this was asked last."""
        entries: list[dict[str, Any]] = self.driver.get_log(kind)  # type: ignore[no-untyped-call]
        return entries

    def asked_for(self) -> list[str]:
        """The addresses of everything that the browser asked for since the page was shown."""
        messages = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]

    def tell(self, expression: str) -> Any:
        """What an expression of JavaScript is in the page."""
        return self.driver.execute_script(f"return {expression}")

    def picture(self, target: Path) -> None:
        """The whole page as PNG."""
        height = self.tell("document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": self.tell("innerWidth"), "height": height, "scale": 1}
        done = self.command("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        target.write_bytes(base64.b64decode(done["data"]))
