"""Signing in to a real Flower behind a unix socket, as nginx would reach it."""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import flower
import pytest
from addon_support import BROWSER, Flower, Redis, wait_for
from flower import urls
from passlib.hash import bcrypt, sha512_crypt

from flowerbed.auth import DOCTOR, session_cookie
from flowerbed.settings import load, load_credentials

ATTEMPTS = 3


@dataclass
class Site:
    flower: Flower
    alice: str
    bob: str

    def session(self, name: str) -> dict[str, str]:
        settings = load(self.flower.directory / "flowerbed.json")
        return {"user": session_cookie(settings, load_credentials(settings), name)}


@pytest.fixture(scope="module")
def site(flower_process: Callable[..., Flower], redis_server: Redis) -> Site:
    alice, bob = secrets.token_urlsafe(12), secrets.token_urlsafe(12) + ":ü€"
    users = [
        {"name": "alice", "hash": bcrypt.using(rounds=12).hash(alice)},
        {"name": "bob", "hash": sha512_crypt.using(rounds=5000).hash(bob)},
        {"name": "doctor", "hash": sha512_crypt.using(rounds=5000).hash(alice)},
    ]
    credentials = {"cookie_secret": secrets.token_hex(32), "users": users, "celery": {"broker_url": redis_server.url}}
    settings = {"secure_cookies": False, "login_attempts": ATTEMPTS, "login_window_seconds": 60}
    return Site(flower_process(settings, credentials, unix_socket=True), alice, bob)


def from_address(address: str) -> dict[str, str]:
    return {"X-Real-IP": address}


def test_a_browser_is_sent_to_the_login_page(site: Site) -> None:
    answer = site.flower.request("GET", "/tasks?x=1", BROWSER)
    assert (answer.status, answer.headers["Location"]) == (302, "/login?next=%2Ftasks%3Fx%3D1")


@pytest.mark.parametrize("path", ["/", "/workers", "/tasks", "/broker", "/tasks/datatable", "/api/workers"])
def test_a_script_is_told_401(site: Site, path: str) -> None:
    answer = site.flower.request("GET", path)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")


def test_every_address_of_flower_is_closed(site: Site) -> None:
    is_open = ("/metrics", "/healthcheck", "/static/", "/login", "/logout")
    patterns = [getattr(handler, "regex", None) or re.compile(handler[0]) for handler in urls.handlers[:-1]]
    paths = [re.sub(r"\(\.[+*]\)", "x", pattern.pattern.rstrip("$").rstrip("?")) for pattern in patterns]
    closed = [path for path in paths if not path.startswith(is_open)]
    assert len(closed) > 20
    for path in closed:
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
            assert site.flower.request(method, path).status in (401, 405), (method, path)


def test_posting_without_a_session_is_401(site: Site) -> None:
    assert site.flower.request("POST", "/api/task/async-apply/x").status == 401


def test_a_pages_own_script_gets_no_password_box(site: Site) -> None:
    answer = site.flower.request("GET", "/workers?json=1", {"X-Requested-With": "XMLHttpRequest"})
    assert answer.status == 401
    assert "WWW-Authenticate" not in answer.headers


@pytest.mark.parametrize("path", ["/healthcheck", "/metrics", "/static/css/flower.css", "/login"])
def test_what_is_open_stays_open(site: Site, path: str) -> None:
    assert site.flower.request("GET", path).status == 200


def test_basic(site: Site) -> None:
    for basic in (("alice", site.alice), ("bob", site.bob)):
        assert site.flower.request("GET", "/api/workers", basic=basic).status == 200
    assert site.flower.request("GET", "/", basic=("alice", site.alice)).status == 200


def test_basic_in_latin_1(site: Site) -> None:
    # "alice:ü" as old clients send it: a wrong password, and no error
    header = {"Authorization": "Basic YWxpY2U6/A=="}
    answer = site.flower.request("GET", "/api/workers", {**header, **from_address("198.51.100.9")})
    assert answer.status == 401


@pytest.mark.parametrize("header", ["Basic", "Basic !!!", "Basic YWxpY2U=", "Bearer abc", "basic \u00a0"])
def test_a_broken_header_is_401(site: Site, header: str) -> None:
    assert site.flower.request("GET", "/api/workers", {"Authorization": header}).status == 401


def test_a_good_password_is_remembered(site: Site) -> None:
    basic = ("alice", site.alice)
    site.flower.request("GET", "/api/workers", basic=basic)
    started = time.monotonic()
    for _ in range(10):
        assert site.flower.request("GET", "/api/workers", basic=basic).status == 200
    # ten verifications at bcrypt cost 12 would take 2.5 s
    assert time.monotonic() - started < 1.5


def test_the_event_loop_turns_while_a_password_is_checked(site: Site) -> None:
    # another address: nothing is remembered there
    slow = threading.Thread(
        target=site.flower.request,
        args=("GET", "/api/workers", from_address("198.51.100.77")),
        kwargs={"basic": ("alice", site.alice)},
    )
    slow.start()
    fast = 0
    while slow.is_alive():
        assert site.flower.request("GET", "/healthcheck").status == 200
        fast += 1
    assert fast > 3


def test_parallel_first_calls_are_one_attempt(site: Site) -> None:
    seen: list[int] = []

    def call() -> None:
        answer = site.flower.request("GET", "/api/workers", from_address("198.51.100.20"), basic=("alice", site.alice))
        seen.append(answer.status)

    threads = [threading.Thread(target=call) for _ in range(3 * ATTEMPTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [200] * len(threads)


def test_the_form_signs_in(site: Site) -> None:
    answer = site.flower.sign_in("bob", site.bob, next_page="/tasks")
    assert (answer.status, answer.headers["Location"]) == (303, "/tasks")
    line = answer.cookie("user") or ""
    assert "HttpOnly" in line and "SameSite=Lax" in line and "Path=/;" in line and "Max-Age=43200" in line
    assert "Secure" not in line
    cookies = {"user": answer.cookie_value("user")}
    assert site.flower.request("GET", "/tasks", BROWSER, cookies=cookies).status == 200
    again = site.flower.request("GET", "/login", BROWSER, cookies=cookies)
    assert (again.status, again.headers["Location"]) == (302, "/")


def test_a_session_expires(flower_process: Callable[..., Flower], redis_server: Redis) -> None:
    password = secrets.token_urlsafe(12)
    users = [{"name": "alice", "hash": sha512_crypt.using(rounds=1000).hash(password)}]
    credentials = {"cookie_secret": secrets.token_hex(32), "users": users, "celery": {"broker_url": redis_server.url}}
    flower = flower_process({"secure_cookies": False, "session_seconds": 2}, credentials)
    answer = flower.sign_in("alice", password)
    assert "Max-Age=2" in (answer.cookie("user") or "")
    cookies = {"user": answer.cookie_value("user")}
    assert flower.request("GET", "/api/workers", cookies=cookies).status == 200
    # a client that keeps the cookie for longer than it was told
    wait_for(lambda: flower.request("GET", "/api/workers", cookies=cookies).status == 401, "the end of the session")


@pytest.mark.parametrize(
    "target", ["//evil.test/", "https://evil.test/", "/\\evil.test", "/\t/evil.test", "", "tasks", "/login?next=/"]
)
def test_next_stays_here(site: Site, target: str) -> None:
    answer = site.flower.sign_in("bob", site.bob, next_page=target)
    assert (answer.status, answer.headers["Location"]) == (303, "/")


def test_a_wrong_password_shows_the_form_again(site: Site) -> None:
    answer = site.flower.sign_in("bob", "no <script>", from_address("203.0.113.5"))
    assert answer.status == 401
    assert "Wrong user name or password." in answer.text
    assert 'value="bob"' in answer.text
    assert "no &lt;script&gt;" not in answer.text and "no <script>" not in answer.text
    assert answer.cookie("user") is None
    wait_for(lambda: "Sign-in failed for user 'bob' from 203.0.113.5" in site.flower.log, "the log line")


def test_a_name_cannot_write_log_lines(site: Site) -> None:
    name = "x\n[I 261123 00:00:00 auth:1] all is well" + "y" * 500
    answer = site.flower.request("GET", "/api/workers", from_address("203.0.113.6"), basic=(name, "no"))
    assert answer.status == 401
    line = wait_for(lambda: re.search(r".*203\.0\.113\.6", site.flower.log), "a line")[0]
    assert r"'x\n[I 261123" in line
    assert len(line) < 200


def test_the_form_needs_its_token(site: Site) -> None:
    form = {"username": "bob", "password": site.bob}
    answer = site.flower.request("POST", "/login", BROWSER, form=form)
    assert answer.status == 403
    assert "out of date" in answer.text and 'name="_xsrf"' in answer.text
    assert answer.cookie("user") is None
    # an Authorization header is no way round it
    assert site.flower.request("POST", "/login", form=form, basic=("bob", site.bob)).status == 403


def test_the_form_is_not_taken_from_another_site(site: Site) -> None:
    answer = site.flower.sign_in("bob", site.bob, {"Sec-Fetch-Site": "cross-site"})
    assert answer.status == 403
    assert answer.cookie("user") is None


def test_a_session_cannot_be_used_by_another_site(site: Site) -> None:
    cookies = site.session("bob")
    path = "/api/task/async-apply/x"
    assert site.flower.request("POST", path, {"Origin": "https://evil.example"}, cookies=cookies).status == 403
    assert site.flower.request("POST", path, {"Sec-Fetch-Site": "cross-site"}, cookies=cookies).status == 403
    # and with Basic, which a browser may send by itself, likewise
    cross = {"Sec-Fetch-Site": "cross-site"}
    assert site.flower.request("POST", path, cross, basic=("bob", site.bob)).status == 403


@pytest.mark.skipif(flower.VERSION < (2, 2), reason="Flower 2.1 has no tokens; there the site of the sender must do")
def test_without_a_token_a_session_may_not_post(site: Site) -> None:
    assert site.flower.request("POST", "/api/task/revoke/x", cookies=site.session("bob")).status == 403


def token_of(site: Site, cookies: dict[str, str]) -> str:
    """The token of a page, which Flower 2.1 does not use: there any will do."""
    page = site.flower.request("GET", "/tasks", BROWSER, cookies=cookies)
    assert page.status == 200
    return page.cookie_value("_xsrf") if page.cookie("_xsrf") else "none"


def test_with_its_token_a_session_may_post(site: Site) -> None:
    token = token_of(site, site.session("bob"))
    answer = site.flower.request(
        "POST",
        "/api/task/revoke/no-such-task",
        {"X-Xsrftoken": token},
        cookies={**site.session("bob"), "_xsrf": token},
    )
    assert answer.status == 200, answer.text


def test_signing_out(site: Site) -> None:
    answer = site.flower.request("GET", "/logout", BROWSER, cookies=site.session("bob"))
    assert answer.status in (200, 302)
    assert re.match(r'user=("")?;', answer.cookie("user") or "")


def test_a_forged_cookie_is_nobody(site: Site) -> None:
    value = site.session("bob")["user"]
    for cookie in (value[:-1] + ("0" if value[-1] != "0" else "1"), "bob", "u::bob", "flowerbed", "2|1:0|", ""):
        assert site.flower.request("GET", "/api/workers", cookies={"user": cookie}).status == 401


def test_a_second_cookie_of_another_instance_does_no_harm(site: Site) -> None:
    good = site.session("bob")["user"]
    for line in (f"user=other; user={good}", f"user={good}; user=other"):
        assert site.flower.request("GET", "/api/workers", {"Cookie": line}).status == 200


def test_the_doctor_may_only_look(site: Site) -> None:
    doctor = site.session(DOCTOR)
    assert site.flower.request("GET", "/api/workers", cookies=doctor).status == 200
    token = token_of(site, doctor)
    cookies = {**doctor, "_xsrf": token}
    answer = site.flower.request("POST", "/api/task/revoke/x", {"X-Xsrftoken": token}, cookies=cookies)
    assert (answer.status, answer.text) == (403, "The doctor may only look\n")


def test_a_user_called_doctor_is_a_user(site: Site) -> None:
    answer = site.flower.sign_in("doctor", site.alice)
    assert answer.status == 303
    cookies = {"user": answer.cookie_value("user")}
    token = token_of(site, cookies)
    headers = {"X-Xsrftoken": token}
    answer = site.flower.request("POST", "/api/task/revoke/x", headers, cookies={**cookies, "_xsrf": token})
    assert answer.status == 200


def test_guessing_is_slowed_down_then_locked_and_nobody_else_is(site: Site) -> None:
    guesser = from_address("203.0.113.66")
    started = time.monotonic()
    for _ in range(ATTEMPTS):
        guess = ("bob", secrets.token_urlsafe(8))
        assert site.flower.request("GET", "/api/workers", guesser, basic=guess).status == 401
    assert time.monotonic() - started > 0.25 + 0.5 + 1
    # locked: the right password does not help here any more, by neither way
    answer = site.flower.request("GET", "/api/workers", guesser, basic=("bob", site.bob))
    assert answer.status == 429
    assert 0 < int(answer.headers["Retry-After"]) <= 60
    form = site.flower.sign_in("bob", site.bob, guesser)
    assert form.status == 429 and "Too many failed attempts" in form.text and "Retry-After" in form.headers
    # the same user elsewhere, and another user here, are not
    started = time.monotonic()
    elsewhere = from_address("203.0.113.67")
    assert site.flower.request("GET", "/api/workers", elsewhere, basic=("bob", site.bob)).status == 200
    assert site.flower.request("GET", "/api/workers", guesser, basic=("alice", site.alice)).status == 200
    assert time.monotonic() - started < 2
    assert "locked for" in site.flower.log


def test_a_flood_of_parallel_guesses_gains_nothing(site: Site) -> None:
    seen: list[int] = []

    def guess() -> None:
        basic = ("bob", secrets.token_urlsafe(8))
        seen.append(site.flower.request("GET", "/api/workers", from_address("203.0.113.80"), basic=basic).status)

    threads = [threading.Thread(target=guess) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen.count(401) == ATTEMPTS
    assert seen.count(429) == len(threads) - ATTEMPTS


def test_no_password_is_in_the_log(site: Site) -> None:
    assert site.alice not in site.flower.log
    assert site.bob not in site.flower.log
    assert "$2b$" not in site.flower.log
