"""What a person sees: the login page, workers, tasks with names and states."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, ConsoleMessage, Error, Page, expect

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


# Runs before any script of a page, outside of its policy: what the policy stops is told on the console as well.
TELL_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) => console.error(
    `policy: ${event.effectiveDirective} stops ${event.blockedURI} on ${event.documentURI}: ${event.sample}`));
"""


@pytest.fixture
def errors(page: Page) -> Iterator[list[str]]:
    """What the console complains of during the test, violations of the policy included."""
    found: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type == "error" and "status of 404" not in message.text:
            found.append(message.text)

    def crash(error: Error) -> None:
        found.append(str(error))

    page.add_init_script(TELL_VIOLATIONS)
    page.on("console", note)
    page.on("pageerror", crash)
    yield found
    page.remove_listener("console", note)
    page.remove_listener("pageerror", crash)


def test_a_violation_would_be_seen(host: Host, page: Page, errors: list[str]) -> None:
    page.goto(f"https://{host.server_name}/workers")
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.bad = 1'}))")
    page.evaluate("document.head.append(Object.assign(document.createElement('style'), {textContent: 'a {}'}))")
    expect(page.locator("body")).to_be_visible()
    assert page.evaluate("window.bad") is None
    assert {error.split()[1] for error in errors if error.startswith("policy:")} == {
        "script-src-elem",
        "style-src-elem",
    }


def theme(page: Page, name: str) -> None:
    """Choose a theme in the menu."""
    page.locator("#theme-toggle").click()
    page.locator(f"[data-bs-theme-value={name}]").click()
    expect(page.locator("html")).to_have_attribute("data-bs-theme", name)


@pytest.mark.parametrize("colours", ["dark", "light"])
def test_no_page_violates_the_policy(host: Host, page: Page, errors: list[str], colours: str) -> None:
    """Every page of Flower's and what can be done on it, in both themes."""
    home = f"https://{host.server_name}"
    page.goto(f"{home}/workers")
    theme(page, colours)
    # The one script within a page: without it the numbers stand still.
    with page.expect_response(re.compile(r"/workers\?json=1")):
        expect(page.locator("#workers-table tbody tr", has_text="celery-a@")).to_have_count(1)
    keep(page, f"{host.name}-{colours}-workers")

    page.locator("#workers-table tbody a", has_text="celery-a@").click()
    tabs = page.locator(".worker-tabs-nav a[data-bs-toggle=tab]")
    expect(tabs).not_to_have_count(0)
    for number in range(tabs.count()):
        tabs.nth(number).click()
        expect(page.locator(tabs.nth(number).get_attribute("data-bs-target") or "")).to_be_visible()
    keep(page, f"{host.name}-{colours}-worker")

    page.goto(f"{home}/tasks")
    rows = page.locator("#tasks-table tbody tr", has_text="workload.")
    expect(rows.first).to_be_visible()
    page.locator("th[data-column=received]:visible").click()
    expect(rows.first).to_be_visible()
    page.locator("#tasks-table_wrapper select").select_option("30")
    expect(rows.first).to_be_visible()
    page.locator("#tasks-table_next").click()
    expect(rows.first).to_be_visible()
    page.locator("#tasks-table_wrapper input[type=search]").fill("state:SUCCESS")
    expect(rows.first).to_be_visible()
    keep(page, f"{host.name}-{colours}-tasks")

    rows.first.locator("a[href*='/task/']").click()
    expect(page).to_have_url(re.compile("/task/"))
    keep(page, f"{host.name}-{colours}-task")
    page.goto(f"{home}/broker")
    expect(page.locator("table")).to_be_visible()
    keep(page, f"{host.name}-{colours}-broker")
    page.goto(f"{home}/no-such-page")
    expect(page.locator("body")).to_contain_text("not found")
    keep(page, f"{host.name}-{colours}-404")
    # A refusal of nginx's limits would be among the errors: all of this came over one connection, from one address.
    assert page.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"
    assert errors == []


def test_logging_out_violates_nothing_and_ends_the_session(host: Host, page: Page, errors: list[str]) -> None:
    page.goto(f"https://{host.server_name}/workers")
    page.get_by_label(re.compile("^Log out")).click()
    expect(page).to_have_url(re.compile("/log(out|in)"))
    keep(page, f"{host.name}-logout")
    page.goto(f"https://{host.server_name}/workers")
    expect(page.get_by_label("User name")).to_be_visible()
    assert errors == []
