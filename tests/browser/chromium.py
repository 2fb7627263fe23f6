"""A real browser, pointed at a host under test."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from playwright.sync_api import Browser, BrowserContext, sync_playwright

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
def chromium(addresses: Mapping[str, str]) -> Iterator[Browser]:
    """A running Chromium for which each name is at its address."""
    rules = ", ".join(f"MAP {name} {address}" for name, address in addresses.items())
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, f"--host-resolver-rules={rules}"])
        try:
            yield opened
        finally:
            opened.close()


@contextmanager
def person(opened: Browser) -> Iterator[BrowserContext]:
    """Somebody with cookies of their own, who does not mind the self-signed certificate."""
    context = opened.new_context(ignore_https_errors=True, viewport={"width": 1280, "height": 900})
    try:
        yield context
    finally:
        context.close()


@contextmanager
def browser(name: str, address: str) -> Iterator[BrowserContext]:
    """A fresh browser for which `name` is at `address`, with one person at it."""
    with chromium({name: address}) as opened, person(opened) as context:
        yield context
