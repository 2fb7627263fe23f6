"""People in real Chromium: a viewer looks, an operator changes, a stranger stays outside."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.sso.conftest import Audit, Door

WORKER = re.compile(r"celery-a@")
# What Flower's own page does when its button is pressed, from inside of the page.
GROW = """async (name) => {
  const token = document.cookie.match(/_xsrf=([^;]+)/)[1];
  const answer = await fetch('/api/worker/pool/grow/' + encodeURIComponent(name) + '?n=1',
    {method: 'POST', headers: {'X-XSRFToken': token}});
  return [answer.status, await answer.text()];
}"""


def keep(page: Page, name: str) -> None:
    """Keep a picture of the page where somebody asked for it."""
    if folder := os.environ.get("FLOWERBED_SCREENSHOTS"):
        page.screenshot(path=Path(folder, f"sso-{name}.png"))


@pytest.fixture(scope="module")
def viewer(door: Door) -> Iterator[BrowserContext]:
    """Vera's browser."""
    with door.visit() as context:
        door.sign_in(context, "vera")
        yield context


@pytest.fixture(scope="module")
def worker_name(viewer: BrowserContext, door: Door) -> str:
    """The full name of a worker."""
    page = viewer.new_page()
    page.goto(f"https://{door.host.server_name}/workers")
    row = page.locator("#workers-table tbody tr", has_text=WORKER)
    expect(row).to_have_count(1)
    return unquote(str(row.locator("a").first.get_attribute("href")).rpartition("/worker/")[2])


def test_a_viewer_sees_all_and_no_buttons(viewer: BrowserContext, door: Door, worker_name: str) -> None:
    page = viewer.new_page()
    page.goto(f"https://{door.host.server_name}/worker/{worker_name}")
    expect(page.locator("body")).to_contain_text(worker_name)
    assert page.locator("#worker-shutdown").count() == 0
    assert page.locator("#worker-pool-grow").count() == 0
    keep(page, "viewer-worker")
    page.goto(f"https://{door.host.server_name}/tasks")
    expect(page.locator("#tasks-table tbody tr", has_text="workload.").first).to_be_visible()


def test_a_viewer_can_change_nothing(viewer: BrowserContext, door: Door, worker_name: str, audit: Audit) -> None:
    page = viewer.new_page()
    page.goto(f"https://{door.host.server_name}/workers")
    assert page.evaluate(GROW, worker_name) == [403, "Viewers may look, and change nothing\n"]
    line = audit.line("refused")
    assert (line["user"], line["role"]) == ("vera@example.org", "viewer")
    assert (line["action"], line["target"]) == ("api/worker/pool/grow", worker_name)


def test_an_operator_can_and_it_is_written_down(door: Door, worker_name: str, audit: Audit) -> None:
    with door.visit() as context:
        page = door.sign_in(context, "ada", f"/worker/{worker_name}")
        expect(page).to_have_url(re.compile("/worker/"))
        page.locator("#worker-group").click()
        expect(page.locator("#worker-shutdown")).to_be_visible()
        keep(page, "operator-worker")
        status, text = page.evaluate(GROW, worker_name)
        assert status == 200, text
    line = audit.line("change")
    assert (line["user"], line["role"]) == ("ada@example.org", "operator")
    assert (line["action"], line["target"], line["parameters"]) == ("api/worker/pool/grow", worker_name, {"n": "1"})
    assert line["address"] == door.gateway, "the address of the browser, not that of nginx"


def test_a_stranger_stays_outside(door: Door, audit: Audit) -> None:
    with door.visit() as context:
        page = door.sign_in(context, "mallory")
        expect(page.locator("body")).to_contain_text("mallory@elsewhere.example")
        keep(page, "stranger")
        assert "user" not in {cookie["name"] for cookie in context.cookies()}
        assert page.evaluate("async () => (await fetch('/api/workers')).status") == 401
    assert audit.line("sign-in refused")["user"] == "mallory@elsewhere.example"


def test_signing_out(door: Door) -> None:
    with door.visit() as context:
        page = door.sign_in(context, "vera")
        page.locator("a[href$='/logout']").click()
        page.wait_for_load_state()
        # The provider asks whether its own session shall end as well.
        if page.get_by_role("button", name="Sign out").count():
            page.get_by_role("button", name="Sign out").click()
        expect(page).to_have_url(re.compile(f"https://{door.host.server_name}/logout"))
        keep(page, "signed-out")
        assert "user" not in {cookie["name"] for cookie in context.cookies()}
        page.goto(f"https://{door.host.server_name}/tasks")
        expect(page.get_by_label("User name")).to_be_visible()


def test_cookies_are_safe(door: Door) -> None:
    with door.visit() as context:
        door.sign_in(context, "vera")
        ours = [cookie for cookie in context.cookies() if cookie["domain"] == door.host.server_name]
        assert {cookie["name"] for cookie in ours} >= {"user", "_xsrf"}
        assert all(cookie["secure"] and cookie["sameSite"] in ("Lax", "Strict") for cookie in ours)
        assert all(cookie["httpOnly"] for cookie in ours if cookie["name"] != "_xsrf")
