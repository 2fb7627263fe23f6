"""Guessing at a user from one address and from 200: nobody gets in, the user does, and pages stay fast."""

from __future__ import annotations

import re
import secrets
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from addon_support import BROWSER, Flower, Redis, Response, wait_for
from passlib.hash import bcrypt

from flowerbed.auth import device_cookie_name, session_cookie
from flowerbed.settings import load, load_credentials
from flowerbed.throttle import NAME_FACTOR

ATTEMPTS, WINDOW = 3, 8
RATE = 20
ADDRESSES = [f"198.18.0.{number}" for number in range(1, 201)]


@dataclass
class Site:
    flower: Flower
    passwords: dict[str, str]
    networks: Iterator[int] = field(default_factory=lambda: iter(range(1, 250)))

    def session(self, name: str) -> dict[str, str]:
        settings = load(self.flower.directory / "flowerbed.json")
        return {"user": session_cookie(settings, load_credentials(settings), name)}

    def device_name(self, name: str) -> str:
        return device_cookie_name(load_credentials(load(self.flower.directory / "flowerbed.json")), name)

    def new_address(self) -> str:
        return f"203.0.113.{next(self.networks)}"

    def basic(self, name: str, password: str, address: str) -> Response:
        return self.flower.request("GET", "/api/workers", {"X-Real-IP": address}, basic=(name, password))

    def form(self, name: str, password: str, address: str, cookies: dict[str, str] | None = None) -> Response:
        page = self.flower.request("GET", "/login", BROWSER)
        token = re.search(r'name="_xsrf" value="([^"]+)"', page.text)
        assert token
        return self.flower.request(
            "POST",
            "/login",
            {**BROWSER, "X-Real-IP": address},
            cookies={"_xsrf": page.cookie_value("_xsrf"), **(cookies or {})},
            form={"_xsrf": token[1], "username": name, "password": password},
        )

    def page_seconds(self, number: int = 15) -> float:
        """The median time of a signed-in user's pages."""
        times = []
        for path in ("/workers", "/api/workers") * (number // 2):
            began = time.monotonic()
            answer = self.flower.request("GET", path, {"X-Real-IP": "192.0.2.200"}, cookies=self.session("alice"))
            assert answer.status == 200
            times.append(time.monotonic() - began)
            time.sleep(0.02)
        return statistics.median(times)


@pytest.fixture(scope="module")
def site(flower_process: Callable[..., Flower], redis_server: Redis) -> Site:
    passwords = {name: secrets.token_urlsafe(12) for name in ("alice", "bob", "carol", "dave", "erin")}
    users = [
        {"name": name, "hash": bcrypt.using(rounds=12 if name == "alice" else 8).hash(password)}
        for name, password in passwords.items()
    ]
    credentials = {"cookie_secret": secrets.token_hex(32), "users": users, "celery": {"broker_url": redis_server.url}}
    settings = {
        "secure_cookies": True,
        "login_attempts": ATTEMPTS,
        "login_window_seconds": WINDOW,
        # every sign-in of a test is a real one
        "verify_cache_seconds": 0,
    }
    return Site(flower_process(settings, credentials, unix_socket=True), passwords)


@contextmanager
def guessing(site: Site, names: Callable[[int], str], addresses: list[str]) -> Iterator[list[Future[Response]]]:
    """Wrong passwords, RATE a second, by Basic and by the form, until the block ends."""
    over = threading.Event()
    sent: list[Future[Response]] = []

    def send(pool: ThreadPoolExecutor) -> None:
        number = 0
        while not over.wait(1 / RATE):
            number += 1
            way = site.form if number % 2 else site.basic
            address = addresses[number * 7 % len(addresses)]
            sent.append(pool.submit(way, names(number), secrets.token_urlsafe(6), address))

    with ThreadPoolExecutor(60) as pool:
        sender = threading.Thread(target=send, args=(pool,))
        sender.start()
        try:
            wait_for(lambda: sum(future.done() for future in list(sent)) >= 2 * RATE, "the attack")
            yield sent
        finally:
            over.set()
            sender.join()


def statuses(sent: list[Future[Response]]) -> Counter[int]:
    return Counter(future.result().status for future in sent)


@pytest.mark.parametrize("number", [1, 200])
def test_a_flood_gets_nowhere_and_delays_nobody(site: Site, number: int) -> None:
    addresses = ADDRESSES[:number] if number > 1 else [site.new_address()]
    quiet = site.page_seconds()
    began = time.monotonic()
    with guessing(site, lambda _: "alice", addresses) as sent:
        attacked = min(site.page_seconds() for _ in range(2))
    seen = statuses(sent)
    windows = (time.monotonic() - began) // WINDOW + 1
    assert set(seen) <= {401, 429, 503}, seen
    allowed = ATTEMPTS if number == 1 else ATTEMPTS * NAME_FACTOR
    assert 0 < seen[401] <= allowed * windows, seen
    assert all("user" not in (future.result().cookie("user") or "") for future in sent)
    assert all(0 < int(f.result().headers["Retry-After"]) <= WINDOW for f in sent if f.result().status == 429)
    assert attacked <= 2 * quiet + 0.05, (quiet, attacked)


def test_the_user_still_signs_in_where_they_are_known(site: Site) -> None:
    own = site.passwords["bob"]
    script = site.new_address()
    # once each before the attack: a browser, and a script
    before = site.form("bob", own, site.new_address())
    device = {site.device_name("bob"): before.cookie_value(site.device_name("bob"))}
    assert site.basic("bob", own, script).status == 200
    with guessing(site, lambda _: "bob", ADDRESSES):
        stranger = wait_for(
            lambda: (answer := site.form("bob", own, site.new_address())).status == 429 and answer, "the lock"
        )
        assert 0 < int(stranger.headers["Retry-After"]) <= WINDOW
        # the browser anywhere, even where guesses come from; the script at its address
        for address in (site.new_address(), ADDRESSES[0]):
            assert site.form("bob", own, address, device).status == 303
        for _ in range(3):
            assert site.basic("bob", own, script).status == 200
        # the cookie is nothing to another user, and no session
        assert site.flower.request("GET", "/api/workers", cookies=device).status == 401
        # others are not concerned
        assert site.form("carol", site.passwords["carol"], site.new_address()).status == 303
    # the lock ends by itself
    wait_for(lambda: site.form("bob", own, site.new_address()).status == 303, "a new browser", 3 * WINDOW)


def test_a_known_device_has_a_limit_too(site: Site) -> None:
    own, key = site.passwords["carol"], site.device_name("carol")
    device = {key: site.form("carol", own, site.new_address()).cookie_value(key)}
    for _ in range(ATTEMPTS):
        assert site.form("carol", "wrong", site.new_address(), device).status == 401
    assert site.form("carol", own, site.new_address(), device).status == 429
    # another device of the same user has not
    another = {key: site.form("carol", own, site.new_address()).cookie_value(key)}
    assert site.form("carol", own, site.new_address(), another).status == 303


def test_the_device_cookie(site: Site) -> None:
    answer = site.form("dave", site.passwords["dave"], site.new_address())
    line = answer.cookie(site.device_name("dave")) or ""
    for part in ("HttpOnly", "Secure", "SameSite=Strict", "Path=/login", "Max-Age=15552000"):
        assert f"; {part}" in line, part
    assert "dave" not in line
    # nobody who did not sign in gets one
    refused = site.form("dave", "wrong", site.new_address())
    assert refused.status == 401 and not refused.cookie(site.device_name("dave"))


def test_a_name_that_does_not_exist_is_answered_alike(site: Site) -> None:
    seen = []
    for name in ("erin", "nobody"):
        with ThreadPoolExecutor(20) as pool:
            sent = [pool.submit(site.basic, name, "wrong", site.new_address()) for _ in range(20)]
        answers = [future.result() for future in sent]
        seen.append(Counter((answer.status, answer.text) for answer in answers))
    assert seen[0] == seen[1]
    limit = ATTEMPTS * NAME_FACTOR
    assert sorted((status, count) for (status, _), count in seen[0].items()) == [(401, limit), (429, 20 - limit)]


def test_a_flood_over_many_names_is_turned_away_and_delays_nobody(site: Site) -> None:
    own, key = site.passwords["alice"], site.device_name("alice")
    first = wait_for(
        lambda: (answer := site.form("alice", own, site.new_address())).status == 303 and answer, "alice", 3 * WINDOW
    )
    device = {key: first.cookie_value(key)}
    quiet = site.page_seconds()
    with guessing(site, lambda number: f"user{number}", ADDRESSES) as sent:
        # the queue for strangers fills up, and then they are told so at once
        wait_for(lambda: any(future.done() and future.result().status == 503 for future in list(sent)), "a full queue")
        attacked = min(site.page_seconds() for _ in range(2))
        began = time.monotonic()
        assert site.form("alice", own, site.new_address(), device).status == 303
        assert time.monotonic() - began < 2
    assert set(statuses(sent)) <= {401, 429, 503}
    assert attacked <= 2 * quiet + 0.05, (quiet, attacked)


def test_no_password_and_no_cookie_is_in_the_log(site: Site) -> None:
    for password in site.passwords.values():
        assert password not in site.flower.log
    assert "Traceback" not in site.flower.log
    assert '"event": "sign-in", "user": "bob", "role": "operator"' in site.flower.log
