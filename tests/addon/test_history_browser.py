"""Real Chromium on the pages of the history, under the policy that nginx sends: what is seen, found, sorted, opened.

Screenshots go to FLOWERBED_SCREENSHOTS where that is set.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from addon_support import Flower, Redis
from history_support import BEGIN, CHORD, collector, done, history_settings, keep, story
from passlib.hash import bcrypt
from playwright.sync_api import BrowserContext, Page, Request, Route, expect

from tests.browser.chromium import browser

DEFAULTS = Path(__file__).resolve().parents[2] / "roles" / "flower" / "defaults" / "main.yml"
POLICY = str(yaml.safe_load(DEFAULTS.read_text())["flower_content_security_policy"])
PASSWORD = secrets.token_urlsafe(16)
#: outside of the page's policy: what that stops is told on the console as well
TELL_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) => console.error(
    `policy: ${event.effectiveDirective} stops ${event.blockedURI} on ${event.documentURI}: ${event.sample}`));
"""
MANY = 60


@pytest.fixture(scope="module")
def flower(
    tmp_path_factory: pytest.TempPathFactory, flower_process: Callable[..., Flower], redis_server: Redis
) -> Iterator[Flower]:
    path = tmp_path_factory.mktemp("history") / "history.sqlite"
    events = [event for number in range(MANY) for event in done(f"many-{number:02}", "shop.many", BEGIN - 90 + number)]
    keep(f"sqlite:///{path}", [*events, *story()], lost=["runs-1"])
    users = [{"name": "otto", "hash": bcrypt.using(rounds=4).hash(PASSWORD)}]
    with collector() as (_, port):
        yield flower_process(
            history_settings(path, port),
            {"cookie_secret": secrets.token_urlsafe(32), "users": users, "celery": {"broker_url": redis_server.url}},
        )


def under_policy(route: Route, request: Request) -> None:
    """Hands a page over as nginx does."""
    answer = route.fetch(max_redirects=0)
    route.fulfill(response=answer, headers={**answer.headers, "content-security-policy": POLICY})


@pytest.fixture(scope="module")
def context(flower: Flower) -> Iterator[BrowserContext]:
    with browser("flower.test", "127.0.0.1") as opened:
        opened.set_default_timeout(20000)
        opened.route("**/*", under_policy)
        opened.add_init_script(TELL_VIOLATIONS)
        page = opened.new_page()
        page.goto(f"{flower.url}/tasks")
        page.get_by_label("User name").fill("otto")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        expect(page).to_have_url(re.compile("/tasks$"))
        page.close()
        yield opened


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page whose console stays empty."""
    opened, found = context.new_page(), []
    opened.on("console", lambda message: found.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: found.append(str(error)))
    yield opened
    opened.close()
    assert found == []


def look(page: Page, name: str, width: int, colours: str) -> None:
    """The page in a width and theme: nothing of ours is wider than the window; a picture where one is wanted."""
    page.set_viewport_size({"width": width, "height": 900})
    page.evaluate("colours => document.documentElement.setAttribute('data-bs-theme', colours)", colours)
    for place in ("#search-help", "#task-tree"):
        for element in page.locator(place).all():
            box = element.bounding_box()
            assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width, (place, box)
    if folder := os.environ.get("FLOWERBED_SCREENSHOTS"):
        page.screenshot(path=Path(folder, f"history-{name}-{colours}-{width}.png"), full_page=True)


def looks(page: Page, name: str) -> None:
    for colours in ("light", "dark"):
        for width in (1280, 400):
            look(page, name, width, colours)
    page.set_viewport_size({"width": 1280, "height": 900})


def test_the_table_sorts_searches_and_pages(flower: Flower, page: Page) -> None:
    page.goto(f"{flower.url}/tasks")
    rows = page.locator("#tasks-table tbody tr")
    expect(rows).to_have_count(15)
    info = page.locator("#tasks-table_info")
    total = MANY + len({event["uuid"] for event in story()})
    expect(info).to_contain_text(f"1 to 15 of {total}")
    looks(page, "tasks")

    page.locator("th[data-column=received]:visible, th:visible:has-text('Received')").first.click()
    expect(rows.first).to_contain_text(re.compile("many-00|waits-1"))
    page.locator("#tasks-table_next").click()
    expect(info).to_contain_text("16 to 30")

    box = page.locator("#tasks-table_filter input")
    box.fill("exception:timeout since:2h")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("bad-1")
    box.fill("since:tomorrow")
    expect(page.locator("#task-search-error")).to_contain_text("followed by no time")
    page.locator("#task-search-error a").click()
    page.locator("#search-help summary").click()
    expect(page.locator("#search-help dl")).to_be_visible()
    looks(page, "search")
    box.fill("state:STARTED")
    expect(rows).to_contain_text("STARTED (lost)")


def test_a_chord_is_a_tree(flower: Flower, page: Page) -> None:
    page.goto(f"{flower.url}/tasks")
    page.locator("#tasks-table_filter input").fill("name:shop.order")
    expect(page.locator("#tasks-table tbody tr")).to_have_count(1)
    page.locator("#tasks-table tbody a[href$='/task/order']").last.click()
    expect(page).to_have_url(re.compile("/task/order$"))
    rows = page.locator("#task-tree li")
    expect(rows).to_have_count(len(CHORD))
    # side by side and one step in; the body stands where the first stands
    left = [row.locator("a, strong").first.bounding_box() for row in rows.all()]
    steps = [round(box["x"]) for box in left if box is not None]
    assert steps[0] == steps[4] < steps[1] == steps[2] == steps[3]
    # bars follow one another in time
    bars = [row.locator("[aria-hidden] div div").last.bounding_box() for row in rows.all()]
    starts = [box["x"] for box in bars if box is not None]
    assert starts == sorted(starts) and starts[0] < starts[4]
    looks(page, "chord")
    rows.nth(4).locator("a").click()
    expect(page).to_have_url(re.compile("/task/pack$"))
    expect(page.locator("#task-tree [aria-current]")).to_contain_text("shop.pack")


def test_the_policy_is_in_force(flower: Flower, context: BrowserContext) -> None:
    """Or an empty console would say nothing."""
    page = context.new_page()
    found: list[str] = []
    page.on("console", lambda message: found.append(message.text))
    page.goto(f"{flower.url}/tasks")
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.bad = 1'}))")
    expect(page.locator("#tasks-table tbody tr")).not_to_have_count(0)
    assert page.evaluate("window.bad") is None
    assert any("script-src-elem" in text for text in found)
    page.close()


def test_a_lost_task_says_so(flower: Flower, page: Page) -> None:
    page.goto(f"{flower.url}/task/runs-1")
    expect(page.locator("[data-history-notice]")).to_contain_text("This task is lost")
    looks(page, "lost")


def test_a_history_that_is_gone_says_so(flower: Flower, page: Page) -> None:
    """The last test: it takes the history away."""
    history = Path(
        json.loads((flower.directory / "flowerbed.json").read_text())["history"]["url"].removeprefix("sqlite://")
    )
    history.rename(history.with_suffix(".away"))
    page.goto(f"{flower.url}/tasks")
    expect(page.locator("[data-history-notice]")).to_contain_text("There is no history in")
    expect(page.locator("#task-search-error")).to_contain_text("There is no history in")
    looks(page, "gone")
