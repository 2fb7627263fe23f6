"""What a person sees: the login page, workers, tasks with names and states."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.chromium import browser
from tests.hosts import USER_NAME, Host

SECONDS = 1000.0  # milliseconds


@pytest.fixture(scope="module")
def context(host: Host) -> Iterator[BrowserContext]:
    """One browser for each host."""
    with browser(host.server_name, host.address) as opened:
        opened.set_default_timeout(30 * SECONDS)
        yield opened


def sign_in(page: Page, name: str, password: str) -> None:
    """Fill in the login page."""
    page.get_by_label("User name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


@pytest.fixture(scope="module")
def page(host: Host, context: BrowserContext, secrets: dict[str, str]) -> Page:
    """A page of somebody who has signed in; sign-ins are limited, so once is enough for all tests."""
    opened = context.new_page()
    opened.goto(f"https://{host.server_name}/")
    expect(opened).to_have_url(re.compile("/login"))
    sign_in(opened, USER_NAME, secrets["user_password"])
    expect(opened).not_to_have_url(re.compile("/login"))
    return opened


def keep(page: Page, name: str) -> None:
    """Keep a picture of the page where somebody asked for it."""
    if folder := os.environ.get("FLOWERBED_SCREENSHOTS"):
        page.screenshot(path=Path(folder, f"{name}.png"))


def test_wrong_password_stays_on_the_login_page(host: Host, context: BrowserContext) -> None:
    stranger = context.new_page()
    stranger.goto(f"https://{host.server_name}/tasks")
    expect(stranger).to_have_url(re.compile("/login"))
    keep(stranger, f"{host.name}-login")
    sign_in(stranger, USER_NAME, "not the password")
    expect(stranger.locator("input[type=password]")).to_be_visible()
    expect(stranger.locator("#login-error")).to_be_visible()
    stranger.close()


def test_workers_page_lists_both(host: Host, page: Page) -> None:
    page.goto(f"https://{host.server_name}/workers")
    for worker in ("celery-a@", "celery-b@"):
        row = page.locator("#workers-table tbody tr", has_text=worker)
        expect(row).to_have_count(1)
        expect(row).to_contain_text("Online")
    keep(page, f"{host.name}-workers")


@pytest.mark.parametrize(("button", "state"), [("Succeeded", "SUCCESS"), ("Failed", "FAILURE"), ("Retried", "RETRY")])
def test_tasks_page_lists_names_and_states(host: Host, page: Page, button: str, state: str) -> None:
    # The page does not reload itself, and a task is in RETRY only until it runs again: look until one is there.
    for _ in range(40):
        page.goto(f"https://{host.server_name}/tasks")
        page.get_by_role("button", name=button, exact=True).click()
        row = page.locator("#tasks-table tbody tr", has_text="workload.").first
        try:
            expect(row).to_contain_text(re.compile(f"{state}|{button}", re.IGNORECASE), timeout=4 * SECONDS)
            break
        except AssertionError:
            continue
    else:
        pytest.fail(f"no task in state {state} was listed")
    keep(page, f"{host.name}-tasks-{state.lower()}")


def test_a_task_opens(host: Host, page: Page) -> None:
    page.goto(f"https://{host.server_name}/tasks?state=SUCCESS")
    page.locator("#tasks-table tbody tr", has_text="workload.").first.locator("a[href*='/task/']").click()
    expect(page).to_have_url(re.compile("/task/"))
    expect(page.locator("body")).to_contain_text("workload.")


def test_cookies_are_safe(page: Page) -> None:
    cookies = {cookie["name"]: cookie for cookie in page.context.cookies()}
    assert cookies["user"]["secure"]
    assert cookies["user"]["httpOnly"]
    assert all(cookie["secure"] for cookie in cookies.values())


def test_no_errors_in_the_console(host: Host, page: Page) -> None:
    """A Content-Security-Policy that is too tight shows here first."""
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    for path in ("/workers", "/tasks", "/broker"):
        page.goto(f"https://{host.server_name}{path}")
        page.wait_for_timeout(1.5 * SECONDS)
    assert errors == []
