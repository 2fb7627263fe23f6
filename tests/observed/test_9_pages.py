"""Flower's own pages show the history: before and after both services are restarted, and after the host is."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from playwright.sync_api import Error, Page, expect

from tests.browser.chromium import browser
from tests.hosts import COLLECTOR, UNIT, USER_NAME, Host, scenario_secrets, wait_for

SECONDS = 1000.0  # milliseconds
#: the chords that observed.spread starts from within a task
SEARCHED = "observed.spread"
SEARCH = f"name:{SEARCHED} state:SUCCESS"


class NetworkChangedError(Exception):
    """Another container came or went, and Chromium threw away what it was asking for."""


@contextmanager
def signed_in(host: Host) -> Iterator[Page]:
    """A page of the operator's in a real browser; whatever its console complained of fails the test."""
    with browser(host.server_name, host.address) as context:
        context.set_default_timeout(30 * SECONDS)
        page = context.new_page()
        complaints: list[str] = []
        failures: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: failures.append(request.failure or ""))
        try:
            page.goto(f"https://{host.server_name}/tasks")
            page.get_by_label("User name").fill(USER_NAME)
            page.get_by_label("Password").fill(scenario_secrets()["user_password"])
            page.get_by_role("button", name="Sign in").click()
            expect(page).to_have_url(f"https://{host.server_name}/tasks")
            yield page
            assert complaints == []
        except (AssertionError, Error):
            if any("ERR_NETWORK_CHANGED" in failure for failure in failures):
                raise NetworkChangedError from None
            raise


def found(page: Page, host: Host, search: str, name: str) -> list[str]:
    """Ids of the tasks of a name that the Tasks tab shows for a search, newest first."""
    page.goto(f"https://{host.server_name}/tasks")
    rows = page.locator("#tasks-table tbody tr")
    expect(rows.first).to_be_visible()
    page.locator("#tasks-table_filter input").fill(search)
    # Nothing else is shown once the search is answered.
    expect(rows.filter(has_not_text=name)).to_have_count(0)
    links = rows.filter(has_text=name).locator("a[href*='/task/'][href*='-']")
    expect(links.first).to_be_visible()
    return list(dict.fromkeys(str(link.get_attribute("href")).rpartition("/")[2] for link in links.all()))


def sorted_by_name(page: Page) -> list[str]:
    """The names that the Tasks tab shows when it is sorted by name."""
    with page.expect_response(re.compile("/tasks/datatable")):
        page.locator("th:visible:has-text('Name')").first.click()
    expect(page.locator("th[aria-sort]:visible:has-text('Name')").first).to_be_visible()
    cells = page.locator("#tasks-table tbody tr td:first-child")
    return [text.strip() for text in cells.all_inner_texts()]


def look(name: str) -> list[str]:
    """Finds, sorts, and looks at the tree of a chord; returns what was found."""
    for _ in range(3):
        # the other host of the scenario is restarted when its own tests say so
        with suppress(NetworkChangedError):
            # its address may be another one since it was restarted
            return look_once(Host(name))
    return look_once(Host(name))


def look_once(host: Host) -> list[str]:
    """The same, unless the network changes meanwhile."""
    with signed_in(host) as page:
        ids = found(page, host, SEARCH, SEARCHED)
        page.goto(f"https://{host.server_name}/tasks")
        expect(page.locator("#tasks-table tbody tr").first).to_be_visible()
        names = sorted_by_name(page)
        assert names == sorted(names)
        page.goto(f"https://{host.server_name}/task/{ids[0]}")
        # the chord's header, its body, and the task that started it; where results are files, one more watches them
        tree = page.locator("#task-tree").get_by_role("listitem").filter(has_not_text="celery.chord_unlock")
        expect(tree).to_have_count(5)
        expect(tree.filter(has_text="observed.add")).to_have_count(3)
        expect(tree.filter(has_text="observed.total")).to_have_count(1)
        expect(tree.get_by_text("SUCCESS", exact=True)).to_have_count(5)
    return ids


@pytest.fixture(scope="module")
def before(host: Host) -> list[str]:
    """What the pages show while nothing has been restarted; the chords are of the mix that the first tests sent."""
    return look(host.name)


def test_after_a_restart_of_both_services(host: Host, before: list[str]) -> None:
    host.run("systemctl", "stop", UNIT, COLLECTOR)
    # nothing of what is shown comes from Flower's own state
    host.shell("rm -f /var/lib/flower/main/flower*")
    host.run("systemctl", "start", UNIT, COLLECTOR)
    wait_for("the front door answers", lambda: host.get("/healthcheck").status == 200)
    assert look(host.name) == before


def test_after_a_restart_of_the_host(host: Host, before: list[str]) -> None:
    subprocess.run(["docker", "restart", "--time", "30", host.name], check=True, capture_output=True, timeout=120)
    rebooted = Host(host.name)
    wait_for("the host has started", lambda: rebooted.run("systemctl", "is-active", UNIT, COLLECTOR), seconds=180)
    wait_for("the front door answers", lambda: rebooted.get("/healthcheck").status == 200)
    assert look(host.name) == before
