"""A real browser, pointed at a host under test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import BrowserContext, sync_playwright

CHROMIUM = os.environ.get("FLOWERBED_CHROMIUM", "/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def browser(name: str, address: str) -> Iterator[BrowserContext]:
    """A fresh browser for which `name` is at `address`; it does not mind the self-signed certificate."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*FLAGS, f"--host-resolver-rules=MAP {name} {address}"]
        )
        try:
            yield chromium.new_context(ignore_https_errors=True, viewport={"width": 1280, "height": 900})
        finally:
            chromium.close()
